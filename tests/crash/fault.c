/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a process (LD_PRELOAD), makes a disk fail on command: minihs_fault(kind, after, times) lets `after`
 * calls on a write-ahead log or database file pass and then fails `times` of them (-1: all).
 *   kind 1: fsync and fdatasync fail with EIO     kind 2: writes fail with ENOSPC
 *   kind 3: writes fail with EIO                  kind 4: every second half of a write is lost, then ENOSPC
 * minihs_fault_hits() is how many calls have failed since.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static volatile int kind, after, times, hits;

void minihs_fault(int new_kind, int new_after, int new_times) {
    kind = new_kind; after = new_after; times = new_times; hits = 0;
}

int minihs_fault_hits(void) { return hits; }

static int ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    const char *dot = strrchr(path, '.');
    return dot && (!strcmp(dot, ".db") || !strcmp(dot, ".db-wal"));
}

static int strike(int fd, int first, int last) {
    if (kind < first || kind > last || times == 0 || !ours(fd)) return 0;
    if (after > 0) { after--; return 0; }
    if (times > 0) times--;
    hits++;
    return 1;
}

static ssize_t fail_write(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *data, size_t size,
                          off_t offset) {
    if (kind == 4) real(fd, data, size / 2, offset);
    errno = kind == 3 ? EIO : ENOSPC;
    return -1;
}

#define WRITES(name, offset_type)                                                               \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {                   \
        static ssize_t (*real)(int, const void *, size_t, off_t);                               \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                              \
        if (strike(fd, 2, 4)) return fail_write(real, fd, data, size, offset);                  \
        return real(fd, data, size, offset);                                                    \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off_t)

#define SYNCS(name)                                                                             \
    int name(int fd) {                                                                          \
        static int (*real)(int);                                                                \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                              \
        if (strike(fd, 1, 1)) { errno = EIO; return -1; }                                       \
        return real(fd);                                                                        \
    }
SYNCS(fsync)
SYNCS(fdatasync)
