#!/usr/bin/env bash
# The environments of the peers: install.sh FOLDER [PYTHON]    (Python 3.11; makes FOLDER/kraken and FOLDER/pylaia)
#
# torch comes first, in the version that htr-ray itself was measured with, so that everybody has the same kernels. On a
# machine without a GPU let pip find a CPU build of it (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL); the script stops before
# it installs CUDA's libraries, unless CUDA=1 says that they are wanted.
set -euo pipefail
folder=$1
python=${2:-python3.11}
here=$(cd "$(dirname "$0")" && pwd)
torch=2.13.0
mkdir -p "$folder"

# install NAME CONSTRAINTS PACKAGE...: with their dependencies, unless that brings CUDA
install() {
    local pip="$folder/$1/bin/pip" constraints=$2
    shift 2
    local plan
    plan=$("$pip" install --quiet --dry-run --report - -c "$constraints" "$@")
    if [[ -z ${CUDA:-} && $plan == *'"name": "nvidia-'* ]]; then
        echo "install.sh: $* would bring CUDA; give pip a CPU build of torch $torch, or set CUDA=1" >&2
        exit 1
    fi
    "$pip" install --quiet -c "$constraints" "$@"
}

for peer in kraken pylaia; do
    "$python" -m venv "$folder/$peer"
    "$folder/$peer/bin/pip" install --quiet --upgrade pip
    echo "torch==$torch" >"$folder/$peer.txt"
done
echo "numpy==1.26.4" >>"$folder/pylaia.txt"

install kraken "$folder/kraken.txt" "torch==$torch"
install kraken "$folder/kraken.txt" kraken==7.1.1
"$folder/kraken/bin/python" "$here/patch.py"

# PyLaia 1.1.2 asks for Python below 3.11 and torch 1.13, whose wheels all bring CUDA; its code runs with today's.
install pylaia "$folder/pylaia.txt" "torch==$torch" numpy imagesize==1.4.1 'jsonargparse[signatures]==4.7' \
    natsort==8.4.0 scipy==1.11.3 textdistance==4.6.3 mdutils==1.6.0 prettytable==3.11.0 python-bidi==0.6.0 matplotlib \
    future tqdm PyYAML 'fsspec[http]' tensorboard pyDeprecate==0.3.1 packaging
"$folder/pylaia/bin/pip" install --quiet --no-deps 'setuptools<70' torchmetrics==0.7.3 pytorch-lightning==1.4.2 \
    torchvision==0.28.0
"$folder/pylaia/bin/pip" install --quiet --no-deps --ignore-requires-python pylaia==1.1.2
"$folder/pylaia/bin/python" "$here/patch.py"

"$folder/kraken/bin/ketos" --version
"$folder/pylaia/bin/pylaia-htr-train-ctc" --help >/dev/null
"$folder/pylaia/bin/pip" show --quiet pylaia && echo "PyLaia can be started"
