# Environment of every build, sourced by the Makefile's recipes and by hand (`. ci/env.sh`), so
# that all of them share one build. What is already set wins.

shoal_cache=${XDG_CACHE_HOME:-$HOME/.cache}/shoal

# RocksDB is ten minutes of C++: keep its objects outside the checkout.
if command -v ccache >/dev/null 2>&1; then
    export CC="${CC:-ccache gcc}" CXX="${CXX:-ccache g++}"
    export CCACHE_DIR="${CCACHE_DIR:-$shoal_cache/ccache}"
fi

# A clean checkout in CI finds what the last one built.
if [ -n "${CI:-}" ]; then
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$shoal_cache/target}"
    # Every clone is built once: what would make a second build of it fast only fills the disk.
    export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
fi
