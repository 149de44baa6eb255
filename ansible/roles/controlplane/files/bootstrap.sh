#!/bin/bash
# Makes the operator's key of this host: bootstrap.sh WHERE_THE_OPERATORS_DOOR_IS. Only a request over loopback gets one,
# so a door that listens elsewhere is opened there for a moment, in place of the service.
set -euo pipefail
umask 077
door=$1
file=/etc/ringward/operator.key

make() {
    ringward --operator-url "http://$door" --json bootstrap --data-dir /var/lib/ringward |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["secret"])' >"$file.new" &&
        mv "$file.new" "$file"
}

case $door in
127.* | localhost:* | '[::1]:'*) make ;;
*)
    door=127.0.0.1:${door##*:}
    trap 'systemctl stop ringward-bootstrap.service; systemctl start ringward.service' EXIT
    systemctl stop ringward.service
    systemd-run --quiet --collect --unit=ringward-bootstrap --uid=ringward --gid=ringward \
        --property=EnvironmentFile=-/etc/ringward/ringward.env --setenv=RINGWARD_OPERATOR__LISTEN="$door" \
        --setenv=RINGWARD_API__LISTEN=127.0.0.1:0 --setenv=RINGWARD_AGENTS__LISTEN=127.0.0.1:0 \
        /usr/bin/ringward serve --config /etc/ringward/ringward.toml
    for _ in $(seq 60); do
        if make 2>/dev/null; then exit 0; fi
        sleep 0.5
    done
    make
    ;;
esac
