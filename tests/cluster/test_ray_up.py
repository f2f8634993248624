"""cluster/aws.yaml: through Ray's own validation, and through Ray's AWS code on a simulated cloud."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

VALUES = {
    "AWS_REGION": "eu-central-1",
    "IMAGE_CPU": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/htr-ray:cpu",
    "IMAGE_CUDA": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/htr-ray:cuda",
    "AMI": "ami-0123456789abcdef0",
    "SECURITY_GROUP": "sg-0123456789abcdef0",
    "INSTANCE_PROFILE": "htr-ray",
    "BUCKET": "my-htr-ray",
}


def render(cluster: Path, values: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(cluster / "render.py"), str(cluster / "aws.yaml")],
        capture_output=True,
        text=True,
        env=values,
    )


@pytest.fixture
def config(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The filled template, with a home that holds the token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    result = render(cluster, VALUES)
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)


def test_missing_values_are_named(cluster: Path) -> None:
    values = {name: value for name, value in VALUES.items() if name not in ("AMI", "BUCKET")}
    result = render(cluster, {**values, "BUCKET": ""})
    assert result.returncode == 2 and result.stdout == ""
    assert "AMI, BUCKET" in result.stderr


def test_variables_of_the_nodes_shells_stay(config: dict[str, Any]) -> None:
    assert "$RAY_HEAD_IP:6379" in config["worker_start_ray_commands"][-1]
    assert "$(hostname -I" in config["head_start_ray_commands"][-1]
    assert "${" not in json.dumps(config)


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu"]["resources"]["GPU"] == 1


def test_workers_scale_from_zero_and_gpus_are_spot(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    for name in ("cpu", "gpu"):
        assert types[name]["min_workers"] == 0 < types[name]["max_workers"]
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert types[name]["labels"] == {"ray.io/market-type": "spot"}
    assert "--gpus all" in types["gpu"]["docker"]["worker_run_options"]
    assert "InstanceMarketOptions" not in types["head"]["node_config"], "the head must not be taken away"
    assert types["head"]["resources"] == {"CPU": 0}
    assert sum(types[name]["max_workers"] for name in ("cpu", "gpu")) <= config["max_workers"]
    assert config["provider"]["cache_stopped_nodes"] is False


def test_the_token_reaches_the_user_of_the_image(config: dict[str, Any], cluster: Path) -> None:
    home = next(line for line in (cluster / "Dockerfile").read_text().splitlines() if "HOME=" in line)
    home = home.split("HOME=")[1].split()[0]
    assert config["file_mounts"] == {f"{home}/.ray/auth_token": "~/.ray/auth_token"}
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]


@pytest.mark.filterwarnings("ignore")
def test_rays_aws_code_opens_nothing_to_the_world(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's ``bootstrap`` for AWS runs against moto: it must take our group and make none of its own."""
    moto = pytest.importorskip("moto")
    from ray.autoscaler._private.aws import config as aws
    from ray.autoscaler._private.aws.utils import resource_cache
    from ray.autoscaler._private.util import prepare_config

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    region = VALUES["AWS_REGION"]
    with moto.mock_aws():
        resource_cache.cache_clear()
        ec2, iam = boto3.client("ec2", region_name=region), boto3.client("iam", region_name=region)
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        # As cluster/README.md says: its own members, and SSH from one address.
        group = ec2.create_security_group(GroupName="htr-ray", Description="htr-ray", VpcId=vpc)["GroupId"]
        ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[
                {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
                {
                    "IpProtocol": "tcp",
                    "FromPort": 22,
                    "ToPort": 22,
                    "IpRanges": [{"CidrIp": "198.51.100.7/32"}],
                },
            ],
        )
        iam.create_instance_profile(InstanceProfileName="htr-ray")
        for node_type in config["available_node_types"].values():
            node_type["node_config"]["SecurityGroupIds"] = [group]

        done = aws.bootstrap_aws(prepare_config(config))

        for node_type in done["available_node_types"].values():
            node = node_type["node_config"]
            assert node["SecurityGroupIds"] == [group]
            assert node["ImageId"] == VALUES["AMI"] and node["KeyName"] and node["SubnetIds"]
        everywhere = [
            found["GroupId"]
            for found in ec2.describe_security_groups()["SecurityGroups"]
            for rule in found["IpPermissions"]
            for source in rule["IpRanges"]
            if source["CidrIp"] == "0.0.0.0/0"
        ]
        assert everywhere == []
    resource_cache.cache_clear()
