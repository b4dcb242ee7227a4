"""What is in a pickle, without opening it: its instructions are read one by one, and none is carried out.

A pickle is a program for a small machine. ``disassemble`` walks through it with ``pickletools.genops``, which only
takes instructions apart, and keeps a stack of *descriptions*: where the machine would call a function, a ``Call`` is
noted. So it is known which functions would be called, and names and shapes of the tensors that ``torch.save`` wrote.
"""

from __future__ import annotations

import io
import pickletools
import re
from typing import Any, NamedTuple

MAX_BYTES = 2**24  # of one pickle
MAX_STEPS = 300_000  # instructions: a checkpoint of a thousand tensors has sixty thousand
MAX_NODES = 200_000  # descriptions looked at when tensors are gathered: one can hold another many times
REBUILD = re.compile(r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|qtensor|meta_tensor_no_storage|wrapper_subclass|device_tensor_from_numpy|device_tensor_from_cpu_tensor)$|torch\._tensor\._rebuild_from_type_v2$")  # fmt: skip  # noqa: E501
HARMLESS = re.compile(
    r"(torch\.(\w+Storage|Size|device|dtype|float\w*|bfloat16|half|double|int\w*|uint\w*|bool|Tensor|long|short)"
    r"|torch\.storage\.(UntypedStorage|TypedStorage)|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|collections\.(OrderedDict|defaultdict|Counter)|(builtins|__builtin__)\.(set|frozenset|list|dict|tuple|int|float|complex|bool|str|bytes|bytearray|object|slice|range)"
    r"|numpy(\._?core\.(multiarray|numeric)\.(_reconstruct|scalar|_frombuffer))|numpy\.(ndarray|dtype|\w*int\d*|float\d*)|_codecs\.encode"
    r"|(argparse\.|types\.Simple)Namespace|datetime\.\w+|pathlib\.\w*Path|copyreg\._reconstructor|copy_reg\._reconstructor)$"
)
# modules from which nothing that a file of weights needs can come, and everything that a trap needs
DANGEROUS = re.compile(
    r"(os|posix|nt|ntpath|posixpath|subprocess|sys|shutil|socket|runpy|importlib|imp|pty|commands|code|codeop|ctypes|webbrowser"
    r"|asyncio|multiprocessing|concurrent|threading|_thread|signal|pickle|_pickle|cPickle|dill|cloudpickle|marshal|shelve"
    r"|functools|operator|builtins|__builtin__|pip|http|urllib\d?|requests|httpx|aiohttp|ftplib|telnetlib|smtplib|tempfile|io|_io|zipimport"
    r"|timeit|pdb|bdb|cProfile|profile|trace|doctest|inspect|site|idlelib|lib2to3|distutils|setuptools|ensurepip|venv|pydoc"
    r"|logging\.config|types|weakref|gc|atexit|getpass|keyring|sqlite3|ssl|xmlrpc|numpy\.(testing|f2py|distutils|load|lib)"
    r"|torch\.(load|save|hub|jit|serialization|_inductor|_dynamo|utils|fx|package|compile|ops|classes|_utils_internal)"
    r"|torch\.distributed\.(run|launch|rpc|elastic)|torch\.storage\._load_from_bytes)(\.|$)"
)

MADE_UP, ITS_OWN = "a name that it puts together", "something that it makes itself"  # no file of weights does either


class Global(NamedTuple):
    """A function or class that is named."""

    name: str


class Call(NamedTuple):
    """What a call would give: of a function or class, with these arguments."""

    function: str
    arguments: Any


class Tensor(NamedTuple):
    """A tensor as ``torch.save`` describes it; ``storage`` is the name of the file that holds its numbers."""

    dtype: str
    shape: tuple[int, ...]
    storage: str
    numbers: int
    place: str


class Pairs(list[Any]):
    """The entries of a dictionary, a key and a value each."""


class Opened(NamedTuple):
    """What a pickle would do and make.

    Attributes:
        value: a description of what it makes; None where it ends before that.
        called: functions and classes that it names, in order.
        fault: why it cannot be read to its end; "" if it can.
        inner: whether a pickle lies in one of its byte strings.
        end: the place behind its last byte.
    """

    value: Any
    called: tuple[str, ...]
    fault: str
    inner: bool
    end: int

    @property
    def traps(self) -> list[str]:
        """What it names that runs code or reaches out of the program."""
        return [n for n in self.called if n in (MADE_UP, ITS_OWN) or (DANGEROUS.match(n) and not is_harmless(n))]

    @property
    def foreign(self) -> list[str]:
        """What it names of other programs: neither of a file of weights nor known as a trap."""
        return [name for name in self.called if not is_harmless(name) and name not in self.traps]


def is_harmless(name: str) -> bool:
    """Whether a function or class only makes tensors, containers or plain values."""
    return bool(HARMLESS.match(name) or REBUILD.match(name))


class Machine:
    """The stack, memory and marks of a pickle; ``step`` follows one instruction with descriptions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.called: dict[str, None] = {}
        self.bytes: list[bytes] = []
        self.value: Any = None

    def name(self, name: str) -> Global:
        """Notes a function or class."""
        self.called[name[:200]] = None
        return Global(name[:200])

    def above_mark(self) -> list[Any]:
        """What lies above the last mark, which is taken away with it."""
        begin = self.marks.pop()
        found = self.stack[begin:]
        del self.stack[begin:]
        return found

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call would give."""
        name = function.name if isinstance(function, Global) else ITS_OWN
        if not isinstance(function, Global):
            self.called[name] = None
        return as_tensor(name, arguments) or Call(name, arguments)

    def step(self, op: str, arg: Any) -> None:
        """Follows one instruction.

        Raises:
            LookupError: it wants what is not there.
        """
        stack = self.stack
        if op in CONSTANTS:
            stack.append(CONSTANTS[op])
        elif op in MADE:
            stack.append(MADE[op]())
        elif op in GIVEN:
            if isinstance(arg, bytes | bytearray) and arg[:1] == b"\x80":
                self.bytes.append(bytes(arg))
            stack.append(arg)
        elif op == "MARK":
            self.marks.append(len(stack))
        elif op in TUPLES:
            count = TUPLES[op]
            if len(stack) < count:
                raise IndexError("it takes what is not there")
            found = tuple(stack[-count:])
            del stack[-count:]
            stack.append(found)
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
            stack.pop()
        elif op in ("APPEND", "APPENDS", "ADDITEMS"):
            found = [stack.pop()] if op == "APPEND" else self.above_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(found)
        elif op in ("SETITEM", "SETITEMS"):
            found = [stack.pop(), stack.pop()][::-1] if op == "SETITEM" else self.above_mark()
            _put(stack, found)
        elif op in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            found = self.above_mark()
            stack.append(tuple(found) if op == "TUPLE" else list(found))
            if op == "DICT":
                stack[-1] = Pairs(zip(found[::2], found[1::2], strict=False))
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
MADE: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": Pairs, "EMPTY_SET": list}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
GIVEN = {
    op.name
    for op in pickletools.opcodes
    if op.arg is not None and not op.stack_before and len(op.stack_after) == 1
    and op.name not in ("GLOBAL", "PERSID", "GET", "BINGET", "LONG_BINGET", "EXT1", "EXT2", "EXT4")
}  # fmt: skip
IDLE = ("PROTO", "FRAME", "NEXT_BUFFER", "READONLY_BUFFER")


def _put(stack: list[Any], found: list[Any]) -> None:
    """Puts keys and values into the dictionary, or what would be one, at the top of the stack."""
    pairs = list(zip(found[::2], found[1::2], strict=False))
    top = stack[-1]
    if isinstance(top, Call):  # an OrderedDict and its like begin empty
        stack[-1] = top
        if isinstance(top.arguments, Pairs):
            top.arguments.extend(pairs)
    elif isinstance(top, Pairs):
        top.extend(pairs)


def as_tensor(name: str, arguments: Any) -> Any:
    """The description of a tensor, or of an empty dictionary, that such a call would give; None if it gives neither."""
    if name in ("collections.OrderedDict", "collections.defaultdict", "builtins.dict"):
        return Call(name, Pairs())
    if not REBUILD.match(name) or not isinstance(arguments, tuple) or not arguments:
        return None
    if name.endswith(("_rebuild_parameter", "_rebuild_parameter_with_state")):
        return arguments[0] if isinstance(arguments[0], Tensor) else None
    if name.endswith("_rebuild_from_type_v2"):
        inner = arguments[0].name if isinstance(arguments[0], Global) else ""
        return as_tensor(inner, arguments[2]) if len(arguments) > 2 and not inner.endswith("type_v2") else None
    storage, shape = arguments[0], arguments[2] if len(arguments) > 2 else None
    if not isinstance(storage, Call) or storage.function != "storage" or not isinstance(shape, tuple):
        return None
    own = storage.arguments
    if not isinstance(own, tuple) or len(own) < 5 or not isinstance(own[1], Global):
        return None
    _, kind, key, place, numbers = own[:5]
    if len(shape) > 16 or any(type(n) is not int or not 0 <= n < 2**53 for n in (*shape, numbers)):
        return None
    dtype = kind.name.rpartition(".")[2].removesuffix("Storage")
    return Tensor(dtype, shape, str(key)[:80], numbers, str(place)[:20])


def disassemble(data: bytes, start: int = 0, deeper: int = 2) -> Opened:
    """What a pickle that begins at ``start`` would do and make. Nothing is run and nothing is imported."""
    machine, fault, end, stopped = Machine(), "", start, False
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        for step, (op, arg, place) in enumerate(pickletools.genops(stream)):
            end = (place if place is not None else end) + 1
            if step >= MAX_STEPS:
                fault = f"it has more than {MAX_STEPS:,} instructions"
                break
            if op.name not in IDLE:
                machine.step(op.name, arg)
            stopped = op.name == "STOP"
    except (LookupError, ValueError, OverflowError, TypeError) as error:
        said = " ".join(str(error).split())
        missing = "it reads what it never kept" if isinstance(error, KeyError) else "it takes what is not there"
        fault = missing if isinstance(error, LookupError) else f"it is cut short or damaged ({said[:120]})"
    if not stopped and not fault:
        fault = "it ends before its end"
    called, inner = dict(machine.called), False
    for held in machine.bytes[:8] if deeper else []:
        below = disassemble(held[:MAX_BYTES], 0, deeper - 1)
        if below.called and not below.fault:
            inner = True
            called.update(dict.fromkeys(below.called))
    return Opened(machine.value, tuple(called), fault, inner, end)
