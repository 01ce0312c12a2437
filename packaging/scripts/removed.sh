# After the files are gone. $step: remove, upgrade or purge.
if [ "$step" = remove ]; then
    rmdir /run/libcare 2>/dev/null || true
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
    if command -v augenrules >/dev/null 2>&1; then augenrules --load >/dev/null 2>&1 || true; fi
fi
if [ "$step" = purge ]; then
    rm -rf /etc/sysconfig/kcare /var/cache/kcare /var/lib/libcare /var/lib/kcare /run/kcare
    rm -f /var/log/kcarectl.log
    rmdir /etc/sysconfig 2>/dev/null || true
fi
