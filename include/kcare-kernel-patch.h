/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For sources that are compiled into a kernel patch: code that runs when the
 * patch comes and goes, and data that are attached to structures of the kernel.
 * Copyright (C) 2026 the kcare authors.
 *
 * Callbacks. OBJECT is vmlinux or the name of a module of which the patch
 * replaces functions; FUNCTION takes a struct klp_object *.
 *
 *   KCARE_PRE_PATCH(OBJECT, FUNCTION)     before any task runs new code; another
 *                                         value than 0 refuses the patch
 *   KCARE_POST_PATCH(OBJECT, FUNCTION)    when all tasks run new code
 *   KCARE_PRE_UNPATCH(OBJECT, FUNCTION)   before any task runs old code again
 *   KCARE_POST_UNPATCH(OBJECT, FUNCTION)  when no task runs new code
 *
 * For a module they run when it is patched: at once, or when it is loaded.
 * When a patch is replaced by another level, the kernel runs the callbacks of
 * the new one only: what a pre-patch callback sets up must suit all levels.
 *
 * Shadow variables are those of the kernel (klp_shadow_alloc, klp_shadow_get,
 * klp_shadow_get_or_alloc, klp_shadow_free, klp_shadow_free_all). Each kind has
 * a number: take it from KCARE_SHADOW_ID, so that patches agree and others differ.
 */
#ifndef KCARE_KERNEL_PATCH_H
#define KCARE_KERNEL_PATCH_H

#include <linux/livepatch.h>

#define KCARE_CALLBACK(type, moment, object, function)                                             \
	type kcare_##moment##_##object(struct klp_object *patched);                                \
	type kcare_##moment##_##object(struct klp_object *patched)                                 \
	{                                                                                          \
		return function(patched);                                                          \
	}

#define KCARE_PRE_PATCH(object, function) KCARE_CALLBACK(int, pre_patch, object, function)
#define KCARE_POST_PATCH(object, function) KCARE_CALLBACK(void, post_patch, object, function)
#define KCARE_PRE_UNPATCH(object, function) KCARE_CALLBACK(void, pre_unpatch, object, function)
#define KCARE_POST_UNPATCH(object, function) KCARE_CALLBACK(void, post_unpatch, object, function)

/* "kcare" in the upper bytes; number: 0 to 0xffff. */
#define KCARE_SHADOW_ID(number) (0x6b63617265000000UL | (number))

#endif
