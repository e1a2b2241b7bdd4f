/* A wall clock that jumps: loaded before libc (LD_PRELOAD), it adds to the time of day the seconds that stand in the
 * file CHAOS_CLOCK, which the test rewrites while the process runs. Monotonic time is left alone.
 *
 * Waits until a time of day are told in the process's own time, and the kernel knows the true one: they are put back,
 * else the shim and not the jump would make them an hour longer. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Far above the seconds since any machine was started, far below the time of day. */
#define TIME_OF_DAY 500000000

static const volatile int64_t *offset_file;

__attribute__((constructor)) static void map_offset(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset_file = mapped;
    close(file);
}

static int64_t offset(void) { return offset_file ? *offset_file : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    struct timespec true_time = *until;
    if (until->tv_sec < TIME_OF_DAY) return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, until);
    true_time.tv_sec -= offset();
    return pthread_cond_clockwait(cond, mutex, CLOCK_REALTIME, &true_time);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec true_time = *until;
    true_time.tv_sec -= offset();
    return sem_clockwait(semaphore, CLOCK_REALTIME, &true_time);
}
