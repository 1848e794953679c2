"""Build the compiled core: every `_native/NAME.pyx` becomes `gateway._native.NAME`.

Everything else about the distribution is in `pyproject.toml`. Environment:
`PORTCULLIS_DEBUG=1` keeps asserts, bounds checks and live-object counters; `PORTCULLIS_ASAN=1`
adds AddressSanitizer and UBSan; `PORTCULLIS_FUZZ=1` adds clang's coverage instrumentation;
`PORTCULLIS_EXT=a,b` builds only the named extensions, `PORTCULLIS_EXT=none` none of them.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "_native"
VIEW = ROOT / "build" / "cython-view"

DEBUG = os.environ.get("PORTCULLIS_DEBUG") == "1"
ASAN = os.environ.get("PORTCULLIS_ASAN") == "1"
FUZZ = os.environ.get("PORTCULLIS_FUZZ") == "1"


def require_compiler() -> None:
    """Stop with one clear line where a build cannot succeed, instead of a page of compiler errors."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None and shutil.which("cc") is None:
        sys.exit(f"portcullis: no C compiler (`{compiler}`); remedy: apt-get install gcc")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        sys.exit(f"portcullis: no Python headers for {sys.version.split()[0]}; remedy: apt-get install python3-dev")


def cython_view() -> Path:
    """Give Cython a folder in which `gateway/_native/*.pxd` lies where `cimport` looks for it."""
    link = VIEW / "gateway" / "_native"
    link.parent.mkdir(parents=True, exist_ok=True)
    for package in (link.parent,):
        (package / "__init__.py").touch()
    if not link.is_symlink():
        link.symlink_to(Path("..") / ".." / ".." / "_native")
    return VIEW


def compile_flags() -> tuple[list[str], list[str]]:
    """Return the compiler's and the linker's flags for the build that the environment asks for."""
    compile_args = ["-O2", "-fno-strict-aliasing"]
    link_args: list[str] = []
    if DEBUG:
        compile_args += ["-Wall", "-Wno-unused-function", "-O1", "-g", "-UNDEBUG", "-DPORTCULLIS_DEBUG=1"]
    if ASAN:
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
        compile_args += sanitize
        link_args += sanitize
    if FUZZ:
        compile_args += ["-fsanitize=address,fuzzer-no-link", "-g", "-fno-omit-frame-pointer"]
    if not (DEBUG or ASAN or FUZZ):
        compile_args += ["-g0", "-w"]  # what a compiler says of generated C is for developers, in the other builds
    return compile_args, link_args


def extensions() -> list[Extension]:
    """Name one extension for each `.pyx`; headers beside it count as its dependencies."""
    wanted = {name for name in os.environ.get("PORTCULLIS_EXT", "").split(",") if name}
    compile_args, link_args = compile_flags()
    headers = [str(path.relative_to(ROOT)) for path in sorted(SOURCES.glob("*.h"))]
    found = []
    for source in sorted(SOURCES.glob("*.pyx")):
        if wanted and source.stem not in wanted:
            continue
        found.append(
            Extension(
                f"gateway._native.{source.stem}",
                [str(source.relative_to(ROOT))],
                include_dirs=["_native"],
                depends=headers,
                libraries=["dl"] if sys.platform == "linux" else [],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
        )
    return found


class BuildExt(build_ext):
    """Run Cython only when something is really built, so that an sdist needs no compiler."""

    def finalize_options(self) -> None:
        from Cython.Build import cythonize

        require_compiler()
        directives = {
            "language_level": "3",
            "binding": True,
            "embedsignature": True,
            "freethreading_compatible": False,
        }
        if DEBUG:
            directives.update(boundscheck=True, wraparound=False, initializedcheck=True, overflowcheck=False)
        self.distribution.ext_modules[:] = cythonize(
            self.distribution.ext_modules,
            include_path=[str(cython_view())],
            build_dir="build/c",
            compiler_directives=directives,
            nthreads=os.cpu_count() or 1,
            quiet=True,
        )
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
