#!/bin/bash
# tiny.sh IMAGE OUT - makes a tiny image (busybox and a few modules, about 2 MB) for tests that boot many machines.
# IMAGE is a directory made by `hostler image build`: its kernel is used, and the modules come out of its squashfs.
set -euo pipefail
IMAGE=$1 OUT=$2; HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$OUT"; WORK=$(mktemp -d "$OUT/tiny.XXXXXX"); trap 'rm -rf "$WORK"' EXIT
modules=(failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_net e1000 e1000e af_packet)
root=$WORK/root; mkdir -p "$root"/{bin,proc,sys,dev,tmp,lib/modules}
unsquashfs -q -n -d "$WORK/sq" "$IMAGE/squashfs" $(printf -- 'usr/lib/modules/*/kernel/**/%s.ko* ' "${modules[@]}") usr/lib/modules > /dev/null 2>&1 || true
for m in "${modules[@]}"; do
  file=$(find "$WORK/sq" -name "$m.ko*" | head -n 1)
  [ -n "$file" ] || continue
  cp "$file" "$root/lib/modules/"; basename "$file" >> "$root/lib/modules/order"
done
grep -q virtio_net "$root/lib/modules/order" || { echo "tiny.sh: no virtio_net in $IMAGE/squashfs" >&2; exit 1; }
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$HERE/tiny-init.sh" "$root/init"; chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | zstd -q -9 -c) > "$OUT/boot-initrd"
cp "$IMAGE/boot-kernel" "$OUT/boot-kernel"
