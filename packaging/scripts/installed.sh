# After the files are there. $step: install or upgrade.
load_audit_rules() {
    if command -v augenrules >/dev/null 2>&1; then
        augenrules --load >/dev/null 2>&1 || echo "kernelcare: the audit rules were not loaded; augenrules --load says why." >&2
    fi
}
has_systemd() { [ -d /run/systemd/system ]; }

if command -v systemctl >/dev/null 2>&1; then
    if has_systemd; then systemctl daemon-reload || true; fi
    if [ "$step" = install ]; then
        systemctl enable libcare.socket kcare.service >/dev/null 2>&1 ||
            echo "kernelcare: the units were not enabled; systemctl enable libcare.socket kcare.service says why." >&2
        if has_systemd; then systemctl start libcare.socket || echo "kernelcare: libcare.socket was not started." >&2; fi
    elif has_systemd; then
        # Which processes are patched is kept in the processes: a new server knows it.
        systemctl try-restart libcare.service || true
    fi
fi
load_audit_rules
if [ "$step" = install ]; then
    echo "kernelcare: set PATCH_SERVER in /etc/sysconfig/kcare/kcare.conf, then: kcarectl --import-key FILE; kcarectl --lib-update; libcare-cron init"
fi
