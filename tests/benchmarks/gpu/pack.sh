#!/usr/bin/env bash
# What htr_ray needs to train on a GPU machine that has torch, pyarrow, pandas and OpenCV but no network, as one archive
# of some 36 MB:    pack.sh FOLDER [PYTHON_VERSION]    (makes FOLDER/site.tar.xz, by default for Python 3.12 on x86-64)
#
# There: tar -C SITE -xJf site.tar.xz, and PYTHONPATH=SITE:REPOSITORY. Ray comes without its Java, its RLlib and its
# dashboard; MLflow stays out, so of the jobs only the stages run (converge.py), no grid. Versions are constraints.txt's.
set -euo pipefail
folder=$1
version=${2:-3.12}
root=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$folder/wheels" "$folder/site"

options=(--quiet --no-deps --python-version "$version" --implementation cp --only-binary=:all: -c "$root/constraints.txt")
for glibc in 2_34 2_28 2_27 2_24 2_17; do options+=(--platform "manylinux_${glibc}_x86_64"); done
options+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
# Beside what such an image brings: htr_ray's own needs, then Ray's.
for package in pydantic pydantic_core typing_extensions typing-inspection annotated-types omegaconf editdistance rapidfuzz \
    regex nltk joblib Hershey-Fonts ray msgpack jsonschema jsonschema-specifications referencing rpds-py tensorboardX \
    requests charset-normalizer importlib_metadata cloudpickle python-dotenv; do
    python3 -m pip download "${options[@]}" -d "$folder/wheels" "$package"
done
# omegaconf's parser is on PyPI as source alone.
python3 -m pip wheel --quiet --no-deps -c "$root/constraints.txt" -w "$folder/wheels" antlr4-python3-runtime
for wheel in "$folder"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$folder/site"; done
(cd "$folder/site" && rm -rf ray/jars ray/rllib ray/dashboard/client ray/llm tests)
# zipfile forgets what may be executed.
chmod +x "$folder"/site/ray/core/src/ray/{raylet/raylet,gcs/gcs_server}
tar -C "$folder/site" -cf - . | xz -T0 -8 >"$folder/site.tar.xz"
ls -l "$folder/site.tar.xz"
