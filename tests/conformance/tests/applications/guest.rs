//! A virtual machine and a container: the disk of the one, the volume of the other.

use anyhow::{Result, ensure};
use conformance::client::{Client, Death, fails_over};
use conformance::delivered::delivered;
use conformance::{Cluster, wait};
use e2e::lab::{checked, scripts};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const NODES: [&str; 2] = ["node1", "node2"];
const BY_ERRD: &str = "Action restart called by errd";

/// What an administrator adds where clients come to the host's address.
const VIP: &str = r#"<vip><interface_list><interface check="on"><real_interface>
      <virtual_addr addr="ADDRESS" where="one_side_alias"/></real_interface></interface></interface_list></vip>
    <rfs "#;

/// The guest of `scripts/lab-guest`, emulated: a processor of its own is not to be had on every machine that tests.
const MACHINE: &str = "\
# The guest of the tests.
-machine q35,accel=tcg
-cpu max
-m 128
-nodefaults
-kernel /srv/guest/vmlinuz
-initrd /srv/guest/initrd
-append console=ttyS0 quiet panic=1
-drive file=@DIR@/disk,format=raw,if=virtio,cache=writeback
-serial file:@RUN@/console
-serial tcp:0.0.0.0:7000,server=on,wait=off
";

fn write(cluster: &Cluster, node: &str, path: &str, text: &str) -> Result<()> {
    cluster.lab.exec(node, &["sh", "-c", "printf '%s' \"$1\" >\"$2\"", "sh", text, path]).map(drop)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_virtual_machine_finds_everything_on_its_disk() -> Result<()> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let guest = own.join("../../target/tmp/guest");
    let mut make = Command::new(scripts().join("lab-guest"));
    make.arg(&guest).arg(own.join("fixtures/recorder.sh"));
    checked(make, &["lab-guest"])?;
    Cluster::up("tkvm", 2)?.scenario(|cluster| {
        let vip = format!("{}.80", cluster.network());
        for node in NODES {
            cluster.lab.run(&["push", node, &guest.to_string_lossy(), "/srv/guest"])?;
            cluster.lab.exec(node, &["mkdir", "-p", "/srv/data"])?;
        }
        let vip_element = VIP.replace("ADDRESS", &vip);
        let changes = [("<rfs ", vip_element.as_str()), ("/var/lib/sk-machines/kvm", "/srv/data")];
        let module = delivered(cluster, "kvm", 1, &NODES, &changes)?;
        for node in NODES {
            write(cluster, node, "/etc/sk/modules/kvm/conf/machine", MACHINE)?;
            module.order(node, &["config"])?;
        }
        cluster.lab.sh("node1", "truncate -s 16M /srv/data/disk && mkfs.ext4 -q -F /srv/data/disk")?;
        module.start_pair()?;
        let client = Client::recorder(&vip, 7000);
        let death = Death { victim: "qemu-system-x86_64 .*-pidfile /run/sk-kvm/pid", restart: BY_ERRD };
        fails_over(cluster, &module, &client, death, |_| Ok(()))?;

        // A stop is a press on the power button: the guest unmounts its disk, and was not switched off.
        module.order("node2", &["stop", "--wait"])?;
        module.order("node1", &["stop", "--wait"])?;
        let found = cluster.lab.exec("node1", &["dumpe2fs", "-h", "/srv/data/disk"])?;
        ensure!(found.contains("clean") && !found.contains("needs_recovery"), "{found}");
        let left = cluster.lab.pids("node1", "qemu-system-x86_64")?;
        ensure!(left.is_empty(), "{left:?} outlived the stop");
        Ok(())
    })
}

/// Options for a host without control groups of its own, which may not raise its limits.
const CONTAINER: &str = "\
--network host
--cgroups disabled
--ulimit nofile=1024:1024
--ulimit nproc=1024:1024
--volume @DIR@:/data
";
const ENGINE: &str = "podman --root /srv/containers --runroot /run/containers --storage-driver vfs --cgroup-manager cgroupfs --runtime crun";

/// A mount that the runtime looks at although it is told to leave control groups alone; forgotten at power-off.
fn mount_cgroup(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.lab.exec(node, &["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]).map(drop)
}

/// An image made of busybox and the recorder of the fixtures, in the host's own storage.
fn install_image(cluster: &Cluster, node: &str) -> Result<()> {
    write(cluster, node, "/srv/recorder", include_str!("../../fixtures/recorder.sh"))?;
    let line = format!(
        "mkdir -p /srv/image/bin /srv/image/data && cp /bin/busybox /srv/image/bin/ && ln -sf busybox /srv/image/bin/sh && \
         install -m 755 /srv/recorder /srv/image/recorder && tar -C /srv/image -c . | {ENGINE} import - localhost/recorder:1"
    );
    cluster.lab.sh(node, &line).map(drop)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_container_finds_everything_in_its_volume() -> Result<()> {
    Cluster::up("tpodman", 2)?.scenario(|cluster| {
        let vip = format!("{}.80", cluster.network());
        for node in NODES {
            mount_cgroup(cluster, node)?;
            install_image(cluster, node)?;
            cluster.lab.exec(node, &["mkdir", "-p", "/srv/data"])?;
        }
        let engine = format!("name=\"ENGINE\" value=\"{ENGINE}\"");
        let changes = [
            ("VIRTUAL_TO_BE_DEFINED", vip.as_str()),
            ("IMAGE_TO_BE_DEFINED", "localhost/recorder:1"),
            (r#"name="COMMAND" value="""#, r#"name="COMMAND" value="/bin/busybox nc -ll -p 7000 -e /recorder""#),
            (r#"name="ENGINE" value="podman""#, engine.as_str()),
            ("/var/lib/sk-containers/podman", "/srv/data"),
            (r#"nicestoptimeout="60s""#, r#"nicestoptimeout="5s""#),
        ];
        let module = delivered(cluster, "podman", 1, &NODES, &changes)?;
        for node in NODES {
            write(cluster, node, "/etc/sk/modules/podman/conf/container", CONTAINER)?;
            module.order(node, &["config"])?;
        }
        module.start_pair()?;
        let client = Client::recorder(&vip, 7000);
        let death = Death { victim: "^/bin/busybox nc -ll -p 7000", restart: BY_ERRD };
        fails_over(cluster, &module, &client, death, |node| mount_cgroup(cluster, node))?;
        module.order("node1", &["stop", "--wait"])?;
        wait::until("no container is left", Duration::from_secs(30), || {
            let names = cluster.lab.sh("node1", &format!("{ENGINE} ps --all --quiet")).map_err(|e| format!("{e:#}"))?;
            if names.trim().is_empty() { Ok(()) } else { Err(names) }
        })
    })
}
