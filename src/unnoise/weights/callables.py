"""Functions and classes that pickles name: which only make tensors and plain values, and which are traps.

What is on neither list belongs to other programs, and the file does not show what it does.
"""

from __future__ import annotations

import re

MADE_UP, ITS_OWN = "a name that it puts together", "something that it makes itself"  # no file of weights does either
REBUILD = re.compile(
    r"torch\._utils\._rebuild_(tensor(_v2|_v3)?|parameter(_with_state)?|qtensor|meta_tensor_no_storage"
    r"|device_tensor_from_(numpy|cpu_tensor))$|torch\._tensor\._rebuild_from_type_v2$"
)
HARMLESS = (
    re.compile(r"torch\.(\w+Storage|Size|device|dtype|float\w*|bfloat16|half|double|u?int\w*|bool|long|short|Tensor)$"),
    re.compile(r"torch\.(storage\.(Untyped|Typed)Storage|nn\.parameter\.Parameter)$"),
    re.compile(
        r"(builtins|__builtin__)\.(set|frozenset|list|dict|tuple|int|float|complex|bool|str|object|slice|range)$"
    ),
    re.compile(r"(builtins|__builtin__)\.(bytes|bytearray)$|_codecs\.encode$|copy_?reg\._reconstructor$"),
    re.compile(r"collections\.(OrderedDict|defaultdict|Counter)$|(argparse\.|types\.Simple)Namespace$"),
    re.compile(r"numpy\._?core\.(multiarray|numeric)\.(_reconstruct|scalar|_frombuffer)$"),
    re.compile(r"numpy\.(ndarray|dtype|u?int\d*|float\d*)$|datetime\.(date|time|datetime|timedelta|timezone)$"),
    re.compile(r"pathlib\.(Pure)?(Posix|Windows)?Path$"),
)
# what trainers write beside the weights: only named, as everything that a pickle names, and left out
TRAINERS = (
    re.compile(r"(pytorch_lightning|lightning(\.pytorch)?)(\.\w+)*\.(ModelCheckpoint|EarlyStopping|AttributeDict)$"),
    re.compile(r"omegaconf\.(dictconfig|listconfig|base|nodes)\.\w+$|typing\.Any$|torch\.torch_version\.TorchVersion$"),
    re.compile(r"numpy\.dtypes\.\w+DType$|torch\.nn\.modules\.container\.ParameterDict$|enum\.Enum$"),
)
# modules from which nothing that a file of weights needs can come, and everything that a trap needs
TRAPS = frozenset(
    """
    os posix nt ntpath posixpath subprocess sys shutil socket runpy importlib imp pty commands code codeop ctypes
    webbrowser asyncio multiprocessing concurrent threading _thread signal pickle _pickle cPickle dill cloudpickle
    marshal shelve functools operator _operator builtins __builtin__ pip http urllib urllib2 requests httpx aiohttp
    ftplib telnetlib smtplib tempfile io _io zipimport timeit pdb bdb cProfile profile trace doctest inspect site
    idlelib lib2to3 distutils setuptools ensurepip venv pydoc logging.config types weakref gc atexit getpass keyring
    sqlite3 ssl xmlrpc numpy.testing numpy.f2py numpy.distutils numpy.load numpy.lib torch.load torch.save torch.hub
    torch.jit torch.serialization torch._inductor torch._dynamo torch.utils torch.fx torch.package torch.compile
    torch.ops torch.classes torch.storage._load_from_bytes torch.distributed.run torch.distributed.launch
    torch.distributed.rpc torch.distributed.elastic
    """.split()  # noqa: SIM905
)
# a way from one module's attributes into another's: collections._sys.modules, torch._utils.os.system
DETOUR = re.compile(
    r"\._?(os|sys|subprocess|builtins|importlib|pickle|shutil|socket|eval|exec|system|popen)(\.|$)|\.__\w+__"
)


def is_harmless(name: str) -> bool:
    """Whether a function or class only makes tensors, containers or plain values."""
    return REBUILD.match(name) is not None or any(pattern.match(name) for pattern in HARMLESS)


def is_trap(name: str) -> bool:
    """Whether a function or class runs code or reaches out of the program."""
    if name in (MADE_UP, ITS_OWN) or DETOUR.search(name):
        return True
    words = name.split(".")
    return not is_harmless(name) and any(".".join(words[:count]) in TRAPS for count in range(1, min(4, len(words)) + 1))


def is_trainer(name: str) -> bool:
    """Whether it is what trainers write beside weights, which nothing needs."""
    return any(pattern.match(name) for pattern in TRAINERS)
