#!/usr/bin/env bash
# Makes .cache/systemd/tree.tar: a small Debian with systemd, D-Bus, polkit and Python, which tests run as a container.
#
# It is of the machine's own release and from the mirror that its apt uses, so nothing is pulled from a registry. Made once:
# two minutes, then kept. Needs root, or sudo without a password.
#
# Usage: tools/systemd_image.sh            that of the machine's release
#        tools/systemd_image.sh CODENAME   of another release of Debian: .cache/systemd/CODENAME.tar
#        tools/systemd_image.sh path [CODENAME]   prints where the tree is, or will be
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/systemd
own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
only_path=
[ "${1:-}" != path ] || { only_path=yes && shift; }
codename=${1:-$own}
tree=$cache/tree.tar
[ "$codename" = "$own" ] || tree=$cache/$codename.tar
if [ -n "$only_path" ]; then
  echo "$tree"
  exit 0
fi
# libpam-systemd is what polkitd takes for a logind; debootstrap doesn't find it by itself
packages=systemd,systemd-sysv,dbus,libpam-systemd,polkitd,python3-minimal,libpython3-stdlib

fail() {
  echo "systemd_image: $*" >&2
  exit 1
}

[ ! -s "$tree" ] || exit 0
PATH=$PATH:/usr/sbin:/sbin
command -v debootstrap >/dev/null || fail "debootstrap is not installed: apt-get install debootstrap"
as_root=()
[ "$(id -u)" = 0 ] || { sudo -n true 2>/dev/null && as_root=(sudo -n); } || fail "needs root"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two test runs at once: the second finds the first one's result
[ ! -s "$tree" ] || exit 0

[ -n "$codename" ] || fail "/etc/os-release names no release"
# what apt has read its own release from: a mirror, when the machine has one; it has the other releases, too
targets() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' "Codename: $own" 2>/dev/null |
    grep -E '^(https?|file|copy):' | head -n 1
}
mirror=$(targets || true)
if [ -z "$mirror" ]; then
  "${as_root[@]}" apt-get -qq update || true
  mirror=$(targets || true)
fi

work=$(mktemp -d "$cache/make.XXXXXX")
trap '"${as_root[@]}" rm -rf "${work:?}"' EXIT
# shellcheck disable=SC2086 # without a mirror debootstrap takes its own
if ! "${as_root[@]}" debootstrap --variant=minbase --include="$packages" "$codename" "$work/tree" $mirror \
  >"$cache/log" 2>&1 9>&-; then
  cat "$work/tree/debootstrap/debootstrap.log" >>"$cache/log" 2>/dev/null || true
  fail "debootstrap failed for $codename, see .cache/systemd/log"
fi
"${as_root[@]}" rm -rf "$work"/tree/var/cache/apt "$work"/tree/var/lib/apt/lists "$work"/tree/usr/share/{doc,man,locale}
# systemd-tmpfiles empties /tmp at each start, with all that is mounted there from the machine that runs the tests: it must
# never run in this tree, neither as a unit nor by hand
"${as_root[@]}" rm -rf "$work"/tree/usr/lib/tmpfiles.d "$work"/tree/etc/tmpfiles.d
"${as_root[@]}" rm -f "$work"/tree/usr/bin/systemd-tmpfiles "$work"/tree/bin/systemd-tmpfiles
# and what a container can't have, or a machine would wait for
for unit in systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-clean.service \
  systemd-tmpfiles-clean.timer getty.target systemd-logind.service systemd-timesyncd.service apt-daily.timer \
  apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-udevd.service \
  systemd-networkd.service tmp.mount; do
  "${as_root[@]}" ln -sf /dev/null "$work/tree/etc/systemd/system/$unit"
done
"${as_root[@]}" tar -C "$work/tree" --exclude='./dev/*' -cf "$tree.partial" .
"${as_root[@]}" chown "$(id -u):$(id -g)" "$tree.partial"
mv "$tree.partial" "$tree"
echo "systemd_image: $codename is in .cache/systemd/${tree##*/} ($(du -h "$tree" | cut -f1))"
