#!/usr/bin/env bash
# mdns_home.sh PYTHON FOLDER: in a network namespace of its own a gateway at veth0; in another one, at the other end of
# the cable, avahi, which nobody here wrote.  Prints what avahi finds, what is left of it when the gateway has gone, and
# what the gateway finds of avahi's.
set -euo pipefail
python=$1 folder=$2 here=$(dirname "$0")
unshare -n sleep 500 &
home=$!
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
until [ "$(readlink /proc/$home/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link set lo up
ip link add veth0 type veth peer name veth1
ip link set veth1 netns $home
ip addr add 192.168.77.1/24 dev veth0
ip link set veth0 up
inside() { nsenter -t $home -n "$@"; }
inside ip link set lo up
inside ip addr add 192.168.77.2/24 dev veth1
inside ip link set veth1 up

cat > "$folder/bus.conf" <<CONF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=$folder/bus</listen><auth>EXTERNAL</auth><policy context="default"><allow user="*"/>
<allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
CONF
printf '[server]\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces=veth1\n' > "$folder/avahi.conf"
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$folder/bus
dbus-daemon --config-file="$folder/bus.conf" --nofork 2>/dev/null &
until [ -S "$folder/bus" ]; do sleep 0.05; done
mkdir -p /run/avahi-daemon
inside avahi-daemon -f "$folder/avahi.conf" --no-drop-root --no-rlimits --no-chroot --no-proc-title >"$folder/avahi.log" 2>&1 &
until inside avahi-browse --all --cache >/dev/null 2>&1; do sleep 0.1; done

"$python" "$here/mdns_gateway.py" ESTK0100000001 veth0 &
gateway=$!
find() {  # repeats until avahi has an answer: nothing here says when the kernel and two daemons are ready
  local found
  until found=$(inside timeout 5 "$@" 2>/dev/null) && [ -n "$found" ]; do sleep 0.2; done
  echo "$found"
}
find avahi-resolve -4 -n estk0100000001.local
find avahi-resolve -4 -n smgw.local
find avahi-resolve -6 -n estk0100000001.local
find avahi-resolve -a 192.168.77.1
until browsed=$(inside timeout 10 avahi-browse --all --resolve --parsable --no-db-lookup --terminate 2>/dev/null | grep '^=') \
  && grep -q 'IPv4;.*_https._tcp' <<<"$browsed" && grep -q 'IPv6;.*_socks._tcp' <<<"$browsed"; do sleep 0.2; done
echo "$browsed"
kill $gateway
wait $gateway || true
while inside avahi-browse --all --cache --parsable --terminate 2>/dev/null | grep -q ESTK; do sleep 0.2; done
echo gone

# The other way round: avahi has the names, a gateway's querier asks for them; in the end over IPv6 alone.
inside avahi-publish --address heatpump.local 192.168.77.9 2>/dev/null &
pump=$!
inside avahi-publish --address --no-reverse wallbox.local fe80::77 2>/dev/null &
inside avahi-publish --service "SMGW ESTK0100000002" _socks._tcp 1081 2>/dev/null &
"$python" "$here/mdns_asking.py" veth0 heatpump.local wallbox.local "SMGW ESTK0100000002"
kill $pump
ip addr del 192.168.77.1/24 dev veth0
"$python" "$here/mdns_asking.py" veth0 wallbox.local
