#!/bin/busybox sh
# The tiny machine's whole system: DHCP, the node's preseed, its signed requests, a small inventory, one result a script, the end.
# For tests that boot many machines; what a real system does is tested with the full image.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
say() { echo "tiny: $*"; }
stop() { say "$*"; sleep 2; poweroff -f; }
for m in $(cat /lib/modules/order); do insmod "/lib/modules/$m" 2>/dev/null; done
arg() { for x in $(cat /proc/cmdline); do case $x in "$1"=*) echo "${x#"$1"=}" ;; esac; done; }

mac=$(arg BOOTIF | sed 's/^01-//; s/-/:/g'); dev=
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
  for d in /sys/class/net/*; do [ "$(cat "$d/address")" = "$mac" ] && dev=${d##*/}; done
  [ -n "$dev" ] && break
  sleep 0.2
done
[ -n "$dev" ] || stop "no interface has the MAC $mac"
cat > /tmp/udhcpc.sh <<'U'
#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig "$interface" "$ip" netmask "$subnet"
[ -n "$router" ] && route add default gw "${router%% *}"
for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
U
chmod +x /tmp/udhcpc.sh
mkdir -p /etc
ifconfig lo up; ifconfig "$dev" up
udhcpc -q -n -t 10 -T 1 -i "$dev" -s /tmp/udhcpc.sh || stop "no address"

# A URL with its host's address in place of its name: a static busybox cannot ask for names but by nslookup.
# Asked anew each time, so that another try may meet another rack.
located() {
  rest=${1#http://}; where=${rest%%/*}; host=${where%%:*}
  case $host in *[!0-9.]*) ;; *) echo "$1"; return ;; esac
  address=$(nslookup -type=a "$host" 2>/dev/null | awk '/^Name:/{n=1} n && /^Address:/{print $2; exit}')
  echo "http://${address:-$host}${where#"$host"}${rest#"$where"}"
}
url=$(arg cloud-config-url)
n=0; until wget -q -O /tmp/preseed "$(located "$url")"; do n=$((n + 1)); [ $n -ge 30 ] && stop "no preseed from $url"; sleep 1; done
head -n 1 /tmp/preseed | grep -q '^#cloud-config' || stop "the preseed is none"
value() { grep -m1 "^ *$1:" /tmp/preseed | sed 's/^[^:]*: *//; s/^["'\'']//; s/["'\'']$//'; }
base=$(value metadata_url | sed 's,/*$,,')/2012-03-01
auth() {
  echo "Authorization: OAuth oauth_nonce=\"$$$(cat /proc/sys/kernel/random/uuid)\", oauth_timestamp=\"$(date +%s)\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"$(value consumer_key)\", oauth_token=\"$(value token_key)\", oauth_signature=\"%26$(value token_secret)\""
}
get() {
  n=0
  until wget -q -O "$2" --header "$(auth)" "$(located "$base/$1")"; do n=$((n + 1)); [ $n -ge 30 ] && stop "no $1"; sleep 1; done
}
# A signal: form fields as NAME=VALUE, then files as @NAME=PATH.
signal() {
  b=tiny$(cat /proc/sys/kernel/random/uuid)
  : > /tmp/body
  for f in op=signal "$@"; do
    case $f in
    @*) name=${f#@}; path=${name#*=}; name=${name%%=*}
      printf -- '--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: application/octet-stream\r\n\r\n' "$b" "$name" "$name"
      cat "$path" ;;
    *) printf -- '--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s' "$b" "${f%%=*}" "${f#*=}" ;;
    esac >> /tmp/body
    printf '\r\n' >> /tmp/body
  done
  printf -- '--%s--\r\n' "$b" >> /tmp/body
  n=0
  until wget -q -O /tmp/answer --header "$(auth)" --header "Content-Type: multipart/form-data; boundary=$b" --post-file /tmp/body "$(located "$base/")"; do
    n=$((n + 1)); [ $n -ge 30 ] && stop "the rack does not take a signal"; sleep 1
  done
}

get meta-data/instance-id /tmp/instance-id
get user-data /tmp/user-data
get maas-scripts /tmp/scripts.tar
mkdir /tmp/scripts && tar xf /tmp/scripts.tar -C /tmp/scripts || stop "the scripts' tar is none"

cpus=$(grep -c ^processor /proc/cpuinfo); kib=$(awk '/^MemTotal/{print $2}' /proc/meminfo)
model=$(grep -m1 '^model name' /proc/cpuinfo | sed 's/^[^:]*: *//'); threads=
i=0; while [ $i -lt "$cpus" ]; do threads="$threads${threads:+,}{\"id\":$i,\"thread\":0,\"online\":true,\"numa_node\":0}"; i=$((i + 1)); done
dmi() { cat "/sys/class/dmi/id/$1" 2>/dev/null; }
cat > /tmp/inventory <<J
{"api_extensions":["resources","resources_v2","api_os","resources_system"],"api_version":"1.0",
"environment":{"kernel":"Linux","kernel_architecture":"$(uname -m)","kernel_version":"$(uname -r)","os_name":"tiny","os_version":"1","server":"tiny","server_name":"tiny","server_version":"1"},
"resources":{"cpu":{"architecture":"$(uname -m)","total":$cpus,"sockets":[{"name":"$model","vendor":"","socket":0,"cores":[{"core":0,"die":0,"frequency":0,"threads":[$threads]}]}]},
"memory":{"total":$((kib * 1024)),"used":0,"hugepages_total":0,"hugepages_used":0,"hugepages_size":0,"nodes":[]},
"network":{"cards":[{"driver":"virtio_net","numa_node":0,"ports":[{"id":"$dev","address":"$mac","port":0,"protocol":"ethernet","link_detected":true}]}],"total":1},
"storage":{"disks":[],"total":0},
"system":{"uuid":"$(dmi product_uuid)","vendor":"$(dmi sys_vendor)","product":"$(dmi product_name)","family":"","version":"","sku":"","serial":"$(dmi product_serial)","type":"physical","firmware":{"vendor":"$(dmi bios_vendor)","date":"$(dmi bios_date)","version":"$(dmi bios_version)"},"chassis":null,"motherboard":null},
"gpu":{"cards":[],"total":0},"pci":{"devices":[],"total":0},"usb":{"devices":[],"total":0}}}
J
cat /proc/cmdline > /tmp/cmdline; echo "this tiny machine does not run it" > /tmp/nothing
echo '<lldp label="LLDP neighbors"/>' > /tmp/neighbours

tr -d '\n' < /tmp/scripts/index.json | sed 's/{/\n{/g' | grep script_result_id > /tmp/entries
while read -r entry; do
  id=$(echo "$entry" | sed 's/.*"script_result_id": *\([0-9]*\).*/\1/')
  name=$(echo "$entry" | sed 's,.*"path": *"[a-z]*/\([^"]*\)".*,\1,')
  case $name in
  *maas-01-commissioning) out=/tmp/inventory ;;
  maas-kernel-cmdline) out=/tmp/cmdline ;;
  maas-capture-lldpd) out=/tmp/neighbours ;;
  *) out=/tmp/nothing ;;
  esac
  signal status=WORKING "script_result_id=$id" "name=$name"
  signal status=WORKING "script_result_id=$id" "name=$name" exit_status=0 runtime=0.1 "@$name=$out" "@$name.out=$out"
done < /tmp/entries
signal status=OK error=
say done
poweroff -f
