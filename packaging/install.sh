#!/bin/sh
# Installs kcare from a directory or a server that has SHA256SUMS and the packages beside it.
#
#   install.sh --from DIR|URL [--key KEYRING]
#
# With --key, SHA256SUMS.sig must be a signature of SHA256SUMS by a key in KEYRING (binary OpenPGP, checked by gpgv).
# From a server without TLS a key is needed. KCARE_PATCH_SERVER and KCARE_REGISTRATION_URL in the environment become
# PATCH_SERVER and REGISTRATION_URL of the configuration, where it has none. Exit status: 0 installed, 1 failed, 2 refused, 64 wrong options.
set -eu

fail() {
    status=$1
    shift
    echo "install.sh: $*" >&2
    exit "$status"
}

from='' key=''
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail 64 "$1 needs a value, or is no option; there are --from and --key"
    case $1 in
    --from) from=$2 ;;
    --key) key=$2 ;;
    *) fail 64 "$1 is no option; there are --from and --key" ;;
    esac
    shift 2
done
[ -n "$from" ] || fail 64 "say where the packages are: --from DIR|URL"
for url in "${KCARE_PATCH_SERVER:-}" "${KCARE_REGISTRATION_URL:-}"; do
    case $url in
    *[!A-Za-z0-9/.:@_%?=\&+,~-]*) fail 64 "$url cannot stand in the configuration" ;;
    '' | http://?* | https://?* | /*) ;;
    *) fail 64 "$url is neither a URL nor an absolute path" ;;
    esac
done
[ "$(id -u)" = 0 ] || fail 2 "installing takes root"
[ "$(uname -m)" = x86_64 ] || fail 2 "kcare is for x86-64, not for $(uname -m)"
if command -v dpkg >/dev/null 2>&1; then
    suffix=_amd64.deb
elif command -v rpm >/dev/null 2>&1; then
    suffix=.x86_64.rpm
else
    fail 2 "neither dpkg nor rpm is here"
fi
case $from in
http://*) [ -n "$key" ] || fail 2 "$from can be forged on the way: give --key, or use https" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

fetch() {
    case $from in
    http://* | https://*)
        if command -v curl >/dev/null 2>&1; then
            curl -fsSL -o "$work/$1" "${from%/}/$1"
        elif command -v wget >/dev/null 2>&1; then
            wget -q -O "$work/$1" "${from%/}/$1"
        elif [ -x /usr/lib/apt/apt-helper ]; then
            /usr/lib/apt/apt-helper -qq download-file "${from%/}/$1" "$work/$1"
        else
            fail 1 "curl or wget is needed to download"
        fi || fail 1 "${from%/}/$1 could not be downloaded"
        ;;
    *) cp "$from/$1" "$work/$1" || fail 1 "$from/$1 could not be read" ;;
    esac
}

fetch SHA256SUMS
if [ -n "$key" ]; then
    command -v gpgv >/dev/null 2>&1 || fail 1 "gpgv is needed to check the signature"
    fetch SHA256SUMS.sig
    case $key in
    /*) ;;
    *) key=$PWD/$key ;;
    esac
    gpgv --quiet --keyring "$key" "$work/SHA256SUMS.sig" "$work/SHA256SUMS" ||
        fail 2 "SHA256SUMS is not signed by a key in $key; nothing was installed"
fi
package=$(awk -v suffix="$suffix" \
    'NF == 2 && $2 ~ /^kernelcare[-_][0-9A-Za-z._-]+$/ && substr($2, length($2) - length(suffix) + 1) == suffix { print $2 }' \
    "$work/SHA256SUMS" | tail -n 1)
[ -n "$package" ] || fail 1 "$from has no package *$suffix"
fetch "$package"
(cd "$work" && grep "  $package\$" SHA256SUMS | sha256sum --check --quiet --strict) ||
    fail 2 "$package is not what SHA256SUMS says; nothing was installed"
case $suffix in
*.deb) dpkg -i "$work/$package" ;;
*) rpm -U "$work/$package" ;;
esac || fail 1 "$package could not be installed"

# What the administrator has written stays.
configure() {
    [ -n "$2" ] || return 0
    grep -q "^[[:space:]]*$1[[:space:]]*=" "$configuration" || echo "$1=$2" >>"$configuration"
}
configuration=/etc/sysconfig/kcare/kcare.conf
configure PATCH_SERVER "${KCARE_PATCH_SERVER:-}"
configure REGISTRATION_URL "${KCARE_REGISTRATION_URL:-}"
echo "kcare is installed; kcare-check says whether this host is covered, and what to do."
