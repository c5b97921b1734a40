#!/bin/bash
# Builds an ephemeral image from the distribution's packages: a kernel, an initrd that fetches its root over HTTP, and a squashfs
# with cloud-init and the tools that the built-in scripts call. Run by `hostler image build`, which checks its tools and arguments.
#   build.sh OUT RELEASE ARCH KERNEL(generic|cloud) FIRMWARE(0|1) GLUE MIRROR [PACKAGE…]
# Leaves OUT/{boot-kernel,boot-initrd,squashfs,packages}. Everything else goes with the temporary directory.
set -euo pipefail
OUT=$1 RELEASE=$2 ARCH=$3 KERNEL=$4 FIRMWARE=$5 GLUE=$6 MIRROR=$7; shift 7
WORK=$(mktemp -d "$OUT/build.XXXXXX"); ROOT=$WORK/root
trap 'rm -rf "$WORK"' EXIT
say() { echo "image build: $*" >&2; }

case $KERNEL in generic) kernel=linux-image-$ARCH ;; cloud) kernel=linux-image-cloud-$ARCH ;; esac
packages=(systemd-sysv udev dbus kmod "$kernel" initramfs-tools overlayroot busybox klibc-utils zstd
  cloud-init python3 python3-yaml python3-oauthlib ca-certificates curl wget iproute2 ifupdown isc-dhcp-client netbase
  lldpd openssh-server sudo dmidecode pciutils usbutils lshw ethtool smartmontools nvme-cli ipmitool freeipmi-tools
  util-linux e2fsprogs parted gdisk fdisk procps iputils-ping eatmydata "$@")
components=main
if [ "$FIRMWARE" = 1 ]; then
  # Network and storage controllers whose drivers load a blob; the licence of each is the distribution's matter.
  components=main,contrib,non-free,non-free-firmware
  packages+=(firmware-bnx2 firmware-bnx2x firmware-cavium firmware-misc-nonfree firmware-netxen firmware-qlogic firmware-realtek)
fi

# The initrd is made once, when the packages' triggers run, so its settings must be there before them.
cp -a "$GLUE/initramfs-tools" "$WORK/glue"
[ "$KERNEL" = cloud ] && sed -i 's/^MODULES=.*/MODULES=list/' "$WORK/glue/conf.d/hostler"
say "installing $RELEASE/$ARCH with the $KERNEL kernel"
mmdebstrap --mode=root --variant=minbase --components="$components" --architectures="$ARCH" \
  --include="$(IFS=,; echo "${packages[*]}")" \
  --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --setup-hook='mkdir -p "$1/etc/initramfs-tools"' --setup-hook="cp -a $WORK/glue/. \"\$1/etc/initramfs-tools/\"" \
  --quiet "$RELEASE" "$ROOT" ${MIRROR:+"$MIRROR"}

say "configuring"
cp -a "$GLUE/etc/." "$ROOT/etc/"
# With no fstab overlayroot writes one and / becomes writable; with an empty one it would stay read-only.
rm -f "$ROOT/etc/fstab" "$ROOT/etc/hostname" "$ROOT"/etc/ssh/ssh_host_* "$ROOT/etc/resolv.conf"
: > "$ROOT/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer \
  man-db.timer systemd-pstore.service smartmontools.service nvmf-autoconnect.service nvmefc-boot-connections.service; do
  ln -sfn /dev/null "$ROOT/etc/systemd/system/$unit"
done

cp "$ROOT"/boot/vmlinuz-* "$WORK/boot-kernel"
cp "$ROOT"/boot/initrd.img-* "$WORK/boot-initrd"
chroot "$ROOT" dpkg-query -W > "$WORK/packages"

say "packing"
mksquashfs "$ROOT" "$WORK/squashfs" -comp zstd -Xcompression-level 9 -noappend -no-progress -quiet \
  -wildcards -e 'boot/*' 'proc/*' 'sys/*' 'dev/*' 'run/*' 'tmp/*' 'var/cache/apt/archives/*.deb' 'var/cache/apt/*.bin' 'var/lib/apt/lists/*_*' >&2
chmod 644 "$WORK"/{boot-kernel,boot-initrd,squashfs,packages}
mv "$WORK"/{boot-kernel,boot-initrd,squashfs,packages} "$OUT/"
say "done: $(du -h "$OUT/squashfs" | cut -f1) squashfs, $(du -h "$OUT/boot-initrd" | cut -f1) initrd"
