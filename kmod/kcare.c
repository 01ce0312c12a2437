// SPDX-License-Identifier: GPL-2.0-only
/*
 * kcare - remembers in the kernel which live patch is loaded, for those who ask.
 *
 * /dev/kcare                     the agent writes and reads the record
 * /proc/kcare/effective_version  what the running kernel is worth
 * /proc/kcare/cvelist            what its live patch fixes, one a line
 * /proc/sys/kernel/kcare_*       1 switches one fix off
 *
 * It patches nothing and loads nothing: that is done by the kernel's own
 * livepatch modules.
 *
 * Copyright (C) 2026 the kcare authors
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ctype.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysctl.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#include <linux/version.h>

#include "kcare.h"

/* The first line of every record; the number is the version of the protocol. */
#define KCARE_MAGIC "kcare 1\n"
#define KCARE_MAGIC_LENGTH (sizeof(KCARE_MAGIC) - 1)
#define KCARE_RECORD_MAX (256 * 1024)

struct kcare_switch {
	struct ctl_table_header *header;
	char *name;
	/* One entry, and the empty one that kernels before 6.11 look for. */
	struct ctl_table table[2];
};

static DEFINE_MUTEX(record_lock);
/* Lines "KEY VALUE", ended by a null byte; NULL: no patch is loaded. */
static char *record;
static size_t record_length;

static int modify_ldt_off;
static struct kcare_switch *modify_ldt_switch;

/* The value of the first line with this key behind `from`, or NULL. */
static const char *find_line(const char *from, const char *key, size_t *length)
{
	size_t key_length = strlen(key);

	while (from && *from) {
		const char *end = strchrnul(from, '\n');

		if (!strncmp(from, key, key_length) && from[key_length] == ' ') {
			*length = end - from - key_length - 1;
			return from + key_length + 1;
		}
		from = *end ? end + 1 : NULL;
	}
	return NULL;
}

/* Printable lines behind the magic, each with a key, the last one ended. */
static bool record_is_valid(const char *text, size_t length)
{
	size_t at, blank = 0, begin = 0;

	if (length < KCARE_MAGIC_LENGTH || memcmp(text, KCARE_MAGIC, KCARE_MAGIC_LENGTH))
		return false;
	if (text[length - 1] != '\n')
		return false;
	for (at = 0; at < length; at++) {
		unsigned char c = text[at];

		if (c == '\n') {
			if (!blank)
				return false;
			begin = at + 1;
			blank = 0;
		} else if (c == ' ') {
			if (at == begin)
				return false;
			blank = at;
		} else if (c != '\t' && (c < ' ' || c == 0x7f)) {
			return false;
		}
	}
	return true;
}

static void record_replace(char *fresh, size_t length)
{
	char *old;

	mutex_lock(&record_lock);
	old = record;
	record = fresh;
	record_length = length;
	mutex_unlock(&record_lock);
	kfree(old);
}

/* One write is one whole record; the magic alone means that nothing is loaded. */
static ssize_t kcare_write(struct file *file, const char __user *from, size_t count,
			   loff_t *position)
{
	char *fresh;

	if (count > KCARE_RECORD_MAX)
		return -EFBIG;
	fresh = memdup_user_nul(from, count);
	if (IS_ERR(fresh))
		return PTR_ERR(fresh);
	if (!record_is_valid(fresh, count)) {
		kfree(fresh);
		return -EINVAL;
	}
	if (count == KCARE_MAGIC_LENGTH) {
		kfree(fresh);
		fresh = NULL;
		count = 0;
	}
	record_replace(fresh, count);
	return count ?: KCARE_MAGIC_LENGTH;
}

static ssize_t kcare_read(struct file *file, char __user *to, size_t count, loff_t *position)
{
	ssize_t result;

	mutex_lock(&record_lock);
	if (record)
		result = simple_read_from_buffer(to, count, position, record, record_length);
	else
		result = simple_read_from_buffer(to, count, position, KCARE_MAGIC,
						 KCARE_MAGIC_LENGTH);
	mutex_unlock(&record_lock);
	return result;
}

static const struct file_operations kcare_operations = {
	.owner = THIS_MODULE,
	.read = kcare_read,
	.write = kcare_write,
	.llseek = default_llseek,
};

static struct miscdevice kcare_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kcare",
	.mode = 0600,
	.fops = &kcare_operations,
};

static int effective_version_show(struct seq_file *seq, void *unused)
{
	size_t length;
	const char *version;

	mutex_lock(&record_lock);
	version = find_line(record, "effective", &length);
	if (version)
		seq_printf(seq, "%.*s\n", (int)length, version);
	else
		seq_printf(seq, "%s\n", utsname()->release);
	mutex_unlock(&record_lock);
	return 0;
}

static int cvelist_show(struct seq_file *seq, void *unused)
{
	size_t length;
	const char *cve;

	mutex_lock(&record_lock);
	cve = find_line(record, "cve", &length);
	while (cve) {
		/* What follows the tab is for the agent. */
		const char *tab = memchr(cve, '\t', length);

		seq_printf(seq, "%.*s\n", (int)(tab ? tab - cve : length), cve);
		cve = cve[length] ? find_line(cve + length + 1, "cve", &length) : NULL;
	}
	mutex_unlock(&record_lock);
	return 0;
}

/* A patch that somebody else removed is not loaded, whatever the agent wrote. */
static int kcare_module_event(struct notifier_block *block, unsigned long event, void *data)
{
	const struct module *module = data;
	const char *name;
	size_t length;
	char *old = NULL;

	if (event != MODULE_STATE_GOING)
		return NOTIFY_DONE;
	mutex_lock(&record_lock);
	name = find_line(record, "module", &length);
	if (name && strlen(module->name) == length && !memcmp(name, module->name, length)) {
		old = record;
		record = NULL;
		record_length = 0;
	}
	mutex_unlock(&record_lock);
	kfree(old);
	return NOTIFY_DONE;
}

static struct notifier_block kcare_module_events = {
	.notifier_call = kcare_module_event,
};

struct kcare_switch *kcare_switch_register(const char *name, int *off)
{
	struct kcare_switch *fix = kzalloc(sizeof(*fix), GFP_KERNEL);

	if (!fix)
		return ERR_PTR(-ENOMEM);
	fix->name = kasprintf(GFP_KERNEL, "kcare_%s", name);
	if (!fix->name)
		goto no_name;
	fix->table[0].procname = fix->name;
	fix->table[0].data = off;
	fix->table[0].maxlen = sizeof(*off);
	fix->table[0].mode = 0644;
	fix->table[0].proc_handler = proc_dointvec_minmax;
	fix->table[0].extra1 = SYSCTL_ZERO;
	fix->table[0].extra2 = SYSCTL_ONE;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	fix->header = register_sysctl_sz("kernel", fix->table, 1);
#else
	fix->header = register_sysctl("kernel", fix->table);
#endif
	if (!fix->header)
		goto no_header;
	return fix;

no_header:
	kfree(fix->name);
no_name:
	kfree(fix);
	return ERR_PTR(-ENOMEM);
}
EXPORT_SYMBOL_GPL(kcare_switch_register);

void kcare_switch_unregister(struct kcare_switch *fix)
{
	if (IS_ERR_OR_NULL(fix))
		return;
	unregister_sysctl_table(fix->header);
	kfree(fix->name);
	kfree(fix);
}
EXPORT_SYMBOL_GPL(kcare_switch_unregister);

static int __init kcare_init(void)
{
	struct proc_dir_entry *directory;
	int error;

	modify_ldt_switch = kcare_switch_register("modify_ldt", &modify_ldt_off);
	if (IS_ERR(modify_ldt_switch))
		return PTR_ERR(modify_ldt_switch);
	error = -ENOMEM;
	directory = proc_mkdir("kcare", NULL);
	if (!directory)
		goto no_directory;
	if (!proc_create_single("effective_version", 0444, directory, effective_version_show))
		goto no_files;
	if (!proc_create_single("cvelist", 0444, directory, cvelist_show))
		goto no_files;
	error = register_module_notifier(&kcare_module_events);
	if (error)
		goto no_files;
	error = misc_register(&kcare_device);
	if (error)
		goto no_device;
	return 0;

no_device:
	unregister_module_notifier(&kcare_module_events);
no_files:
	remove_proc_subtree("kcare", NULL);
no_directory:
	kcare_switch_unregister(modify_ldt_switch);
	return error;
}

static void __exit kcare_exit(void)
{
	misc_deregister(&kcare_device);
	unregister_module_notifier(&kcare_module_events);
	remove_proc_subtree("kcare", NULL);
	kcare_switch_unregister(modify_ldt_switch);
	kfree(record);
}

module_init(kcare_init);
module_exit(kcare_exit);

MODULE_DESCRIPTION("Tells which kernel live patch is loaded");
MODULE_AUTHOR("the kcare authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("1");
