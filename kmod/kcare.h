/* SPDX-License-Identifier: GPL-2.0-only */
/* What livepatch modules may use of kcare.ko. Copyright (C) 2026 the kcare authors. */
#ifndef KCARE_H
#define KCARE_H

struct kcare_switch;

/*
 * Adds /proc/sys/kernel/kcare_NAME for one fix. *off is 0 while the fix is on;
 * the fixed function reads it. Returns an ERR_PTR. Take it by symbol_get():
 * a patch must load where kcare.ko is not.
 */
struct kcare_switch *kcare_switch_register(const char *name, int *off);
void kcare_switch_unregister(struct kcare_switch *fix);

#endif
