# Becomes systemd in mount, PID and cgroup namespaces of its own, on a chassis of the lab; $1: the folder deploy/chassis, $2: ycloud-cni.
# It has only ycloud's unit, with empty targets for what that waits for: the machine's own services must not start here.
set -eu
mount --make-rprivate /
mount -t proc proc /proc
# systemd writes them as if the machine were its own; /proc/sys/net, which is the chassis' own, stays.
for folder in fs kernel vm; do
    mount --bind /proc/sys/$folder /proc/sys/$folder
    mount -o remount,bind,ro /proc/sys/$folder
done
mount --bind /dev/null /dev/console
# What is written goes with the namespaces.
aside=/mnt
mount -t tmpfs tmpfs "$aside"
mkdir -p "$aside/etc" "$aside/work" /run/systemd
mount -t tmpfs tmpfs /run/systemd
# Of the agent that ran before.
rm -rf /run/ycloud
# What the lab has mounted over them is not seen through an overlay.
for file in hosts resolv.conf hostname; do cat "/etc/$file" >"$aside/etc/$file"; done
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$aside/etc,workdir=$aside/work" /etc
rm -rf /etc/systemd/system /etc/systemd/*.conf.d
mkdir -p /etc/systemd/system
cd /etc/systemd/system
for target in sysinit basic shutdown network-online multi-user; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$target.target"
done
ln -s multi-user.target default.target
# Without a journal, the log is a file.
mkdir ycloud-cni.service.d
printf '[Service]\nStandardOutput=append:/run/systemd/ycloud-cni.log\nStandardError=inherit\n' >ycloud-cni.service.d/log.conf
mount -t tmpfs tmpfs /usr/local/bin
cp "$2" /usr/local/bin/ycloud-cni
cp "$1/ycloud-cni.service" .
install -D -m 0644 "$1/chassis.env" /etc/ycloud/chassis.env
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec env -i PATH="$PATH" container=lab SYSTEMD_UNIT_PATH=/etc/systemd/system \
    SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=1 /lib/systemd/systemd --log-target=null
