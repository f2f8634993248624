"""Make sure that buckets exist: ``make_buckets.py corpora runs mlflow``.

Endpoint and credentials come from ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID`` and so on. Existing buckets
are left as they are. Waits for a store that is still starting; exits with 1 when one cannot be made.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

RETRY_SECONDS = 2.0


def make_bucket(client, name: str) -> str:
    """Create the bucket unless it exists and is ours. Returns ``"made"`` or ``"exists"``."""
    try:
        client.head_bucket(Bucket=name)
        return "exists"
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    region = client.meta.region_name
    # S3 wants no location constraint for its first region and one for every other.
    extra = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=name, **extra)
    return "made"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make sure that buckets exist.")
    parser.add_argument("bucket", nargs="+", help="names of the buckets")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the store (default: 60)")
    options = parser.parse_args(arguments)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    client = boto3.client("s3", region_name=region)
    deadline = time.monotonic() + options.wait
    for name in options.bucket:
        while True:
            try:
                print(f"{name}: {make_bucket(client, name)}")
                break
            except (BotoCoreError, ClientError) as error:
                # A refused key will be refused again; anything else may be a store that is starting.
                status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status in (401, 403) or time.monotonic() >= deadline:
                    where = os.environ.get("AWS_ENDPOINT_URL", "AWS")
                    print(f"cannot make bucket '{name}' at {where}: {error}", file=sys.stderr)
                    return 1
                time.sleep(RETRY_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
