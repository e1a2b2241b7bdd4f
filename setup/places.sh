# Where set-up puts things, for setup/install, setup/env and setup/demo to source.

torch_version=2.11.0
# Outside the build tree: 5 GB that `make clean` and a second clone need not fetch again.
home=${HGAT_HOME:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/hgat}
case $home in /*) ;; *) home=$PWD/$home ;; esac
venv=$home/venv-torch-$torch_version

# The libtorch to build against, or nothing when there is none yet.
libtorch_dir() {
    if [ -n "${HGAT_LIBTORCH:-}" ]; then
        (cd "$HGAT_LIBTORCH" 2>/dev/null && pwd)
        return
    fi
    local site
    for site in "$venv"/lib/python3.*/site-packages/torch; do
        [ -d "$site/lib" ] && printf '%s\n' "$site" && return
    done
    return 1
}
