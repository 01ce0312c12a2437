/* Hooks and update functions of patches for running processes; docs/libcare-patch-make.md, "Hooks". */
#ifndef KCARE_PATCH_H
#define KCARE_PATCH_H

struct kcare_hook {
  unsigned kind;
  unsigned order;
  void (*function)(void);
  void (*undo)(void);
};

#define KCARE_JOIN_(left, right) left##right
#define KCARE_JOIN(left, right) KCARE_JOIN_(left, right)
#define KCARE_HOOK_(kind, function, undo)                                                                    \
  static const struct kcare_hook kcare_hook_##function                                                       \
      __attribute__((used, aligned(8), section(".kcare.hooks"))) = {kind, __COUNTER__, (void (*)(void))(function), undo}

/* int function(void): any result but 0 keeps the patch from being applied. */
#define KCARE_BEFORE_APPLY(function)                                                                         \
  KCARE_HOOK_(1, function, (void (*)(void))0);                                                               \
  static int (*const kcare_type_##function)(void) __attribute__((unused)) = function
/* void function(void), of all the others. While all threads stand, once: data for the new code. For good. */
#define KCARE_UPDATE(function)                                                                               \
  KCARE_HOOK_(2, function, (void (*)(void))0);                                                               \
  static void (*const kcare_type_##function)(void) __attribute__((unused)) = function
/* The same, and how an unload takes it back. */
#define KCARE_UPDATE_WITH_UNDO(function, undo)                                                               \
  KCARE_HOOK_(2, function, undo);                                                                            \
  static void (*const kcare_type_##function)(void) __attribute__((unused)) = function
#define KCARE_AFTER_APPLY(function)                                                                          \
  KCARE_HOOK_(3, function, (void (*)(void))0);                                                               \
  static void (*const kcare_type_##function)(void) __attribute__((unused)) = function
#define KCARE_BEFORE_UNLOAD(function)                                                                        \
  KCARE_HOOK_(4, function, (void (*)(void))0);                                                               \
  static void (*const kcare_type_##function)(void) __attribute__((unused)) = function
#define KCARE_AFTER_UNLOAD(function)                                                                         \
  KCARE_HOOK_(5, function, (void (*)(void))0);                                                               \
  static void (*const kcare_type_##function)(void) __attribute__((unused)) = function

/* Names a variable, or a type as `struct box`, that an update function of the same file brings into its new form. */
#define KCARE_CONVERTS(name)                                                                                 \
  static const char KCARE_JOIN(kcare_converts_, __COUNTER__)[]                                                  \
      __attribute__((used, section(".kcare.converts"))) = #name

#endif
