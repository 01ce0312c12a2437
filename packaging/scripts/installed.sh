# After the files are there. $step: install or upgrade.
load_audit_rules() {
    if command -v augenrules >/dev/null 2>&1; then
        augenrules --load >/dev/null 2>&1 || echo "kernelcare: the audit rules were not loaded; augenrules --load says why." >&2
    fi
}
has_systemd() { [ -d /run/systemd/system ]; }
is_enabled() { systemctl -q is-enabled "$1" 2>/dev/null; }
# Debian's asks the policy of the host whether anything may be started.
start() { if command -v deb-systemd-invoke >/dev/null 2>&1; then deb-systemd-invoke start "$1"; else systemctl start "$1"; fi; }

# Written by the removal: what the administrator had turned off by then. dpkg calls an installation after that an upgrade.
left_off=/var/lib/kcare/units-left-off
if [ -e "$left_off" ]; then step=install; fi

if command -v systemctl >/dev/null 2>&1; then
    if has_systemd; then systemctl daemon-reload || true; fi
    if [ "$step" = install ]; then
        for unit in libcare.socket libcare.service kcare.service; do
            if grep -qsx "$unit" "$left_off"; then continue; fi
            case $(systemctl is-enabled "$unit" 2>/dev/null) in masked*) continue ;; esac
            # systemd.preset(5): as the administrator has it for all units, else as the package says.
            systemctl preset "$unit" >/dev/null 2>&1 || echo "kernelcare: systemctl preset $unit failed; run it to see why." >&2
        done
        for unit in libcare.socket libcare.service; do
            if has_systemd && is_enabled "$unit"; then start "$unit" || echo "kernelcare: $unit was not started." >&2; fi
        done
    elif has_systemd; then
        # Which processes are patched is kept in the processes: a new server knows it.
        systemctl try-restart libcare.service || true
    fi
fi
rm -f "$left_off"
load_audit_rules
if [ "$step" = install ]; then
    echo "kernelcare: set PATCH_SERVER in /etc/sysconfig/kcare/kcare.conf, then: kcarectl --import-key FILE; kcarectl --lib-update; libcare-cron init"
fi
