/* Faults of disks and of the wall clock, for one process: loaded before libc (LD_PRELOAD), steered by numbers in a file that the
 * test shares with it (OTTLA_SHIM_CONTROL), for files below one directory (OTTLA_SHIM_PREFIX). The numbers' places are those of
 * `Knob` in tests/src/shim.rs. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    LOADED, WALL_OFFSET_MS, WRITE_ERROR, SYNC_ERROR, CREATE_ERROR, READ_ERROR, SYNC_DELAY_MS, WRITE_DELAY_MS,
    FAILURES_LEFT, TEARS, FAILED, SYNCED_AGAIN, KNOBS
};
#define FAILED_FILES 256

static volatile int64_t *knobs;
static const char *prefix;
static size_t prefix_length;
/* Files of which a sync has failed. */
static volatile uint64_t failed_files[FAILED_FILES];
static volatile int failed_count;

#define REAL(name, type) \
    static __typeof__(type) real; \
    if (!real) real = (type)dlsym(RTLD_NEXT, name)

static int really_open(const char *path, int flags)
{
    REAL("open64", int (*)(const char *, int, ...));
    return real(path, flags);
}

__attribute__((constructor)) static void begin(void)
{
    const char *control = getenv("OTTLA_SHIM_CONTROL");
    prefix = getenv("OTTLA_SHIM_PREFIX");
    prefix_length = prefix ? strlen(prefix) : 0;
    if (!control) return;
    int file = really_open(control, O_RDWR);
    if (file < 0) return;
    void *shared = mmap(NULL, KNOBS * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    knobs = shared;
    knobs[LOADED] = getpid();
}

static int64_t knob(int which) { return knobs ? knobs[which] : 0; }

static int is_ours(const char *path)
{
    return prefix_length && !strncmp(path, prefix, prefix_length);
}

static int is_our_file(int file)
{
    char link[40], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* 0, or the error that is to be met now. FAILURES_LEFT below 0: every time. */
static int fault(int which)
{
    int error = (int)knob(which);
    if (!error || !knobs[FAILURES_LEFT]) return 0;
    if (knobs[FAILURES_LEFT] > 0 && __sync_fetch_and_sub(&knobs[FAILURES_LEFT], 1) <= 0) {
        knobs[FAILURES_LEFT] = 0;
        return 0;
    }
    __sync_fetch_and_add(&knobs[FAILED], 1);
    return error;
}

static void wait_ms(int64_t ms)
{
    struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };
    if (ms > 0) nanosleep(&pause, NULL);
}

/* --- writes --- */

static int refuse_write(int file)
{
    if (!(knob(WRITE_ERROR) || knob(WRITE_DELAY_MS)) || !is_our_file(file)) return 0;
    wait_ms(knob(WRITE_DELAY_MS));
    int error = fault(WRITE_ERROR);
    if (error) errno = error;
    return error;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t position)
{
    REAL("pwrite64", ssize_t (*)(int, const void *, size_t, off64_t));
    if (!refuse_write(file)) return real(file, bytes, length, position);
    int error = errno;
    /* As far as there was room. */
    if (knob(TEARS) && length > 1 && error == ENOSPC) {
        ssize_t torn = real(file, bytes, length / 2, position);
        (void)torn;
    }
    errno = error;
    return -1;
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t position)
{
    return pwrite64(file, bytes, length, position);
}

ssize_t write(int file, const void *bytes, size_t length)
{
    REAL("write", ssize_t (*)(int, const void *, size_t));
    return refuse_write(file) ? -1 : real(file, bytes, length);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    REAL("writev", ssize_t (*)(int, const struct iovec *, int));
    return refuse_write(file) ? -1 : real(file, parts, count);
}

/* --- names --- */

static int refuse_create(const char *path, int flags)
{
    if (!(flags & O_CREAT) || !knob(CREATE_ERROR) || !is_ours(path) || !access(path, F_OK)) return 0;
    int error = fault(CREATE_ERROR);
    if (error) errno = error;
    return error;
}

int open64(const char *path, int flags, ...)
{
    REAL("open64", int (*)(const char *, int, ...));
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return refuse_create(path, flags) ? -1 : real(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
    REAL("mkdir", int (*)(const char *, mode_t));
    return refuse_create(path, O_CREAT) ? -1 : real(path, mode);
}

/* --- syncs --- */

static int refuse_sync(int file)
{
    struct stat about;
    if (!knobs || !(knob(SYNC_ERROR) || knob(SYNC_DELAY_MS) || failed_count) || !is_our_file(file)) return 0;
    wait_ms(knob(SYNC_DELAY_MS));
    uint64_t name = fstat(file, &about) ? 0 : about.st_ino;
    for (int at = 0; at < failed_count && at < FAILED_FILES; at++)
        if (failed_files[at] == name) {
            __sync_fetch_and_add(&knobs[SYNCED_AGAIN], 1);
            break;
        }
    int error = fault(SYNC_ERROR);
    if (error) {
        int at = __sync_fetch_and_add(&failed_count, 1);
        if (at < FAILED_FILES) failed_files[at] = name;
        errno = error;
    }
    return error;
}

int fsync(int file)
{
    REAL("fsync", int (*)(int));
    return refuse_sync(file) ? -1 : real(file);
}

int fdatasync(int file)
{
    REAL("fdatasync", int (*)(int));
    return refuse_sync(file) ? -1 : real(file);
}

/* --- reads --- */

ssize_t pread64(int file, void *bytes, size_t length, off64_t position)
{
    REAL("pread64", ssize_t (*)(int, void *, size_t, off64_t));
    int error = knob(READ_ERROR) && is_our_file(file) ? fault(READ_ERROR) : 0;
    if (!error) return real(file, bytes, length, position);
    errno = error;
    return -1;
}

ssize_t pread(int file, void *bytes, size_t length, off_t position)
{
    return pread64(file, bytes, length, position);
}

/* --- the wall clock --- */

static void move(struct timespec *now)
{
    int64_t offset_ms = knob(WALL_OFFSET_MS);
    now->tv_sec += offset_ms / 1000;
    now->tv_nsec += offset_ms % 1000 * 1000000;
    if (now->tv_nsec < 0) now->tv_nsec += 1000000000, now->tv_sec--;
    if (now->tv_nsec >= 1000000000) now->tv_nsec -= 1000000000, now->tv_sec++;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL("clock_gettime", int (*)(clockid_t, struct timespec *));
    int result = real(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(now);
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}
