#!/bin/sh
# The first process of a lab's virtual machine. The kernel gives it what its command line says: NAME, ADDRESSES (with prefix
# lengths), GATEWAYS and MTU, lists with commas.
mount -t devtmpfs dev /dev 2>/dev/null
mount -t proc proc /proc
while read -r module; do insmod "/modules/$module"; done </modules/order
list() { echo "$1" | tr , ' '; }
ip link set lo up
ip link set eth0 mtu "$MTU" up
for address in $(list "$ADDRESSES"); do
    case $address in
    # At once, without looking for duplicates: OVN lets nobody else have it.
    *:*) echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad ;;
    esac
    ip addr add "$address" dev eth0
done
for gateway in $(list "$GATEWAYS"); do
    case $gateway in
    *:*) ip -6 route add default via "$gateway" ;;
    *) ip route add default via "$gateway" ;;
    esac
done
echo "$NAME is up after $(cut -d' ' -f1 /proc/uptime) s"
exec /server "$NAME"
