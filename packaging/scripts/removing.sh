# Before the files go. $step: remove or upgrade.
if [ "$step" = remove ]; then
    flag=/etc/sysconfig/kcare/unpatch-on-removal
    if [ "${KCARE_UNPATCH:-0}" = 1 ] || [ -e "$flag" ]; then
        echo "kernelcare: unpatching all processes, as KCARE_UNPATCH=1 or $flag asks"
        if ! /usr/bin/kcarectl --lib-unload --wait 30; then
            echo "kernelcare: not all processes could be unpatched; nothing is removed. Try again, or remove without KCARE_UNPATCH=1." >&2
            exit 1
        fi
        if [ -e /run/kcare/kernel ] && ! /usr/bin/kcarectl --unload; then
            echo "kernelcare: the kernel could not be unpatched; nothing is removed." >&2
            exit 1
        fi
    else
        echo "kernelcare: processes that are patched stay patched until they end. To unpatch them as well: install again and remove with KCARE_UNPATCH=1."
    fi
    /usr/bin/libcare-cron remove >/dev/null 2>&1 || echo "kernelcare: the periodic job could not be removed; see libcare-cron show." >&2
    if command -v systemctl >/dev/null 2>&1; then
        # For the next installation: it enables the others again.
        mkdir -p -m 755 /var/lib/kcare
        for unit in libcare.socket libcare.service kcare.service; do
            case $(systemctl is-enabled "$unit" 2>/dev/null) in disabled | masked*) echo "$unit" ;; esac
        done >/var/lib/kcare/units-left-off
        if [ -d /run/systemd/system ]; then
            systemctl stop libcare.socket libcare.service kcare.service || true
        fi
        systemctl disable libcare.socket libcare.service kcare.service >/dev/null 2>&1 || true
    fi
fi
