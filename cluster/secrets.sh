#!/bin/sh
# Write cluster/.env with fresh random passwords, readable by its owner alone. An existing file stays as
# it is: its passwords are those of the data on disk.
#
#   sh cluster/secrets.sh
set -eu

file="$(dirname "$0")/.env"
if [ -e "$file" ]; then
    echo "$file exists: left as it is (delete it, and the volumes, to start anew)"
    exit 0
fi

# Hexadecimal, so that no value needs quoting in a URL or a shell.
random() {
    head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

umask 077
cat > "$file.new" <<END
POSTGRES_PASSWORD=$(random 24)
S3_ACCESS_KEY=$(random 10)
S3_SECRET_KEY=$(random 24)
RAY_AUTH_TOKEN=$(random 32)
END
mv "$file.new" "$file"
echo "wrote $file"
