"""What is in a pickle, without opening it: its instructions are read one by one, and none is carried out.

A pickle is a program for a small machine. ``disassemble`` walks through it with ``pickletools.genops``, which only
takes instructions apart, and keeps a stack of *descriptions*: where the machine would call a function, a ``Call`` is
noted. So it is known which functions would be called, and names and shapes of the tensors that ``torch.save`` wrote.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any, NamedTuple

from unnoise.weights.callables import ITS_OWN, MADE_UP, is_harmless, is_trap
from unnoise.weights.described import Call, Global, Pairs, as_container, as_tensor, build

MAX_BYTES = 2**24  # of one pickle
MAX_STEPS = 300_000  # instructions: a checkpoint of a thousand tensors has sixty thousand
MAX_NODES = 200_000  # descriptions looked at when tensors are gathered: one can hold another many times


class Disassembly(NamedTuple):
    """What a pickle would do and make.

    Attributes:
        value: a description of what it makes; None where it ends before that.
        called: functions and classes that it names, in order.
        fault: why it cannot be read to its end; "" if it can.
        inner: whether a pickle lies in one of its byte strings.
        end: the place behind its last byte.
        steps: how many instructions were read, those of pickles inside of it too.
    """

    value: Any
    called: tuple[str, ...]
    fault: str
    inner: bool
    end: int
    steps: int

    @property
    def traps(self) -> list[str]:
        """What it names that runs code or reaches out of the program."""
        return [name for name in self.called if is_trap(name)]

    @property
    def foreign(self) -> list[str]:
        """What it names of other programs: neither of a file of weights nor known as a trap."""
        return [name for name in self.called if not is_harmless(name) and not is_trap(name)]


class Machine:
    """The stack, memory and marks of a pickle; ``step`` follows one instruction with descriptions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.called: dict[str, None] = {}
        self.bytes: list[bytes] = []
        self.copied = 0  # pairs, into dictionaries: one list may fill many
        self.value: Any = None

    def name(self, name: str) -> Global:
        """Notes a function or class."""
        self.called[name[:200]] = None
        return Global(name[:200])

    def above_mark(self) -> list[Any]:
        """What lies above the last mark, which is taken away with it."""
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call would give."""
        name = function.name if isinstance(function, Global) else ITS_OWN
        if not isinstance(function, Global):
            self.called[name] = None
        container = as_container(name, arguments, MAX_NODES - self.copied)
        if container is not None:
            self.copied += len(container.arguments)
            return container
        return as_tensor(name, arguments) or Call(name, arguments)

    def look_inside(self, value: Any) -> None:
        """Keeps a text or bytes that may be a pickle themselves, to be read after this one."""
        if isinstance(value, str) and "\n" in value:
            self.bytes.append(value.encode("utf-8", "replace"))
        elif isinstance(value, bytes | bytearray) and (value[:1] == b"\x80" or b"\n" in value):
            self.bytes.append(bytes(value))

    def step(self, op: str, arg: Any) -> None:
        """Follows one instruction.

        Raises:
            LookupError: it takes what is not there.
        """
        stack = self.stack
        if op in CONSTANTS:
            stack.append(CONSTANTS[op])
        elif op in EMPTY:
            stack.append(EMPTY[op]())
        elif op in OPERANDS:
            self.look_inside(arg)
            stack.append(arg)
        elif op == "MARK":
            self.marks.append(len(stack))
        elif op in TUPLES:
            count = TUPLES[op]
            if len(stack) < count:
                raise IndexError("it takes what is not there")
            values = tuple(stack[-count:])
            del stack[-count:]
            stack.append(values)
        elif op in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if op == "MEMOIZE" else arg] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[arg])
        else:
            self.rest(op, arg)

    def rest(self, op: str, arg: Any) -> None:
        """Follows the instructions that are rarer, or that make and call."""
        stack = self.stack
        if op == "GLOBAL":
            stack.append(self.name(str(arg).replace(" ", ".")))
        elif op == "STACK_GLOBAL":
            last, first = stack.pop(), stack.pop()
            known = isinstance(first, str) and isinstance(last, str)
            stack.append(self.name(f"{first}.{last}" if known else MADE_UP))
        elif op in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if op == "NEWOBJ_EX":
                stack.pop()
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif op == "INST":
            arguments = tuple(self.above_mark())
            stack.append(self.call(self.name(str(arg).replace(" ", ".")), arguments))
        elif op == "OBJ":
            function, *arguments = self.above_mark()
            stack.append(self.call(function, tuple(arguments)))
        elif op.startswith("EXT"):
            stack.append(self.name(f"a registered extension, number {arg}"))
        elif op in ("BINPERSID", "PERSID"):
            stack.append(Call("storage", stack.pop() if op == "BINPERSID" else (arg,)))
        elif op == "BUILD":
            state = stack.pop()
            build(stack[-1], state)
        elif op in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [stack.pop()] if op == "APPEND" else self.above_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
        elif op in ("SETITEM", "SETITEMS"):
            values = [stack.pop(), stack.pop()][::-1] if op == "SETITEM" else self.above_mark()
            _put(stack, values)
        elif op in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            values = self.above_mark()
            stack.append(tuple(values) if op == "TUPLE" else list(values))
            if op == "DICT":
                stack[-1] = Pairs(zip(values[::2], values[1::2], strict=False))
        elif op == "POP":
            if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            else:
                stack.pop()
        elif op == "POP_MARK":
            self.above_mark()
        elif op == "DUP":
            stack.append(stack[-1])
        elif op == "STOP":
            self.value = stack.pop()


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": Pairs, "EMPTY_SET": list}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
OPERANDS = {
    op.name
    for op in pickletools.opcodes
    if op.arg is not None and not op.stack_before and len(op.stack_after) == 1
    and op.name not in ("GLOBAL", "PERSID", "GET", "BINGET", "LONG_BINGET", "EXT1", "EXT2", "EXT4")
}  # fmt: skip
IDLE = ("PROTO", "FRAME", "NEXT_BUFFER", "READONLY_BUFFER")


def _put(stack: list[Any], values: list[Any]) -> None:
    """Puts keys and values into the dictionary, or what would be one, at the top of the stack."""
    pairs = list(zip(values[::2], values[1::2], strict=False))
    top = stack[-1]
    if isinstance(top, Call):  # an OrderedDict and its like begin empty
        stack[-1] = top
        if isinstance(top.arguments, Pairs):
            top.arguments.extend(pairs)
    elif isinstance(top, Pairs):
        top.extend(pairs)


def disassemble(data: bytes, start: int = 0, budget: int = MAX_STEPS, deeper: int = 2) -> Disassembly:
    """What a pickle that begins at ``start`` would do and make. Nothing is run and nothing is imported.

    Args:
        data: the bytes that hold it.
        start: the place of its first byte.
        budget: how many instructions are read at most, those of pickles inside of it too.
        deeper: how many pickles inside of one another are looked for.
    """
    machine, fault, end, steps, stopped = Machine(), "", start, 0, False
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        for op, arg, place in pickletools.genops(stream):
            end = (place if place is not None else end) + 1
            steps += 1
            if steps > budget:
                fault = f"it has more than {budget:,} instructions"
                break
            if op.name not in IDLE:
                machine.step(op.name, arg)
            stopped = op.name == "STOP"
    except (LookupError, ValueError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())
        missing = "it reads what it never kept" if isinstance(error, KeyError) else "it takes what is not there"
        fault = missing if isinstance(error, LookupError) else f"it is cut short or damaged ({reason[:120]})"
    if not stopped and not fault:
        fault = "it ends before its end"
    called, inner = dict(machine.called), False
    for blob in machine.bytes if deeper else []:
        if steps >= budget:
            fault = fault or "it holds more than is looked at"
            break
        below = disassemble(blob, 0, budget - steps, deeper - 1)
        steps += below.steps + 1
        if below.called and not below.fault:
            inner = True
            called.update(dict.fromkeys(below.called))
    return Disassembly(machine.value, tuple(called), fault, inner, end, steps)
