# Makes a node, or another chassis, out of fresh network, mount and UTS namespaces, then holds them. Run by node.rs; all of
# $NODE_* is set there.
set -eu
mount --make-rprivate /
# A peer group of its own: Bidirectional mounts of Pods work within the node and never reach the machine.
mount --make-rshared /
# A sysfs that shows this network namespace; the cgroup tree is carried over.
keep=$(mktemp -d)
mount --rbind /sys/fs/cgroup "$keep"
mount --make-rprivate "$keep"
mount -t sysfs sysfs /sys
mount --rbind "$keep" /sys/fs/cgroup
umount -l "$keep"
rmdir "$keep"
mount -t tmpfs -o mode=755 "run-$NODE_NAME" /run
mkdir -p /run/netns /run/lock /run/containerd /run/openvswitch /run/ovn
# So that every default path is the node's own.
for folder in $NODE_MOUNTS; do
    mount --bind "$NODE_DIR/${folder%%:*}" "${folder#*:}"
done
for file in resolv.conf hostname hosts; do
    # Where the machine's is a link, its target may lie in the /run that has just been covered.
    target=$(readlink -m "/etc/$file")
    if [ ! -e "$target" ]; then mkdir -p "$(dirname "$target")"; : >"$target"; fi
    mount --bind "$NODE_DIR/etc/$file" "$target"
done
hostname "$NODE_NAME"
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
: >"$NODE_DIR/ready"
exec sleep infinity
