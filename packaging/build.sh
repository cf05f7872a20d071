#!/bin/sh
# Makes the .deb and the .rpm in bin/ from the binaries there. Called by `make packages`
# with VERSION and NFPM set.
set -eu

cd "$(dirname "$0")/.."
case $VERSION in
v[0-9]*) VERSION=${VERSION#v} ;;
*) VERSION=0.0.0~$VERSION ;; # no release yet: older than any that will be
esac
VERSION=$(echo "$VERSION" | tr - .) # what follows a hyphen would be a Debian revision
ARCH=$(go env GOARCH)
export VERSION ARCH

out=bin/package
rm -rf $out bin/*.deb bin/*.rpm
mkdir -p $out
bin/dsdbd config -config packaging/dsdb.conf >/dev/null # it must be understood
cp packaging/dsdb.conf $out/dsdb.conf
for page in packaging/*.1; do
	gzip -9nc "$page" >"$out/$(basename "$page").gz"
done
cat >$out/copyright <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: DSDB
Source: https://github.com/dasudian/dsdb

Files: *
Copyright: 2026 The DSDB authors
License: Apache-2.0
 On Debian systems the text of the license is in
 /usr/share/common-licenses/Apache-2.0.
END
printf 'dsdb (%s) unstable; urgency=medium\n\n  * See https://github.com/dasudian/dsdb/blob/main/CHANGELOG.md\n\n -- The DSDB authors <dsdb@dasudian.com>  %s\n' \
	"$VERSION" "$(date -R -u -d "@$(git log -1 --format=%ct 2>/dev/null || date +%s)")" | gzip -9nc >$out/changelog.gz
for format in deb rpm; do
	$NFPM package -f packaging/nfpm.yaml -p $format -t bin/
done
