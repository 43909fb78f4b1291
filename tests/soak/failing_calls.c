/* Let the k-th system call on the paths below one folder fail, or bring a signal.

   Loaded with LD_PRELOAD. Until soak_arm is called all calls pass. Counts calls on absolute paths
   below the folder, and on the descriptors and folders that were opened there.  */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, SHORT };
static char root[PATH_MAX];
static size_t root_length;
static char watched[65536];
static atomic_long n_calls;
static long target;
static int number, signal_number, shorten;
static char *trace; /* one letter a call */
static long trace_size;

void soak_arm(const char *folder, long k, int error, int sig, int is_short, char *out, long size)
{
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    n_calls = 0;
    target = k, number = error, signal_number = sig, shorten = is_short;
    trace = out, trace_size = size;
}

long soak_count(void) { return n_calls; }

static int below(int at, const char *path)
{
    if (!root_length || !path)
        return 0;
    if (path[0] == '/')
        return strncmp(path, root, root_length) == 0 &&
               (path[root_length] == '/' || path[root_length] == 0);
    return at >= 0 && at < 65536 && watched[at];
}

static int is_watched(int fd) { return root_length && fd >= 0 && fd < 65536 && watched[fd]; }

static int meet(char letter)
{
    long place = atomic_fetch_add(&n_calls, 1);
    if (trace && place < trace_size)
        trace[place] = letter;
    if (place != target)
        return PASS;
    if (signal_number) {
        raise(signal_number);
        return PASS;
    }
    if (shorten)
        return SHORT;
    errno = number;
    return FAIL;
}

static int watch(int fd, int yes)
{
    if (fd >= 0 && fd < 65536)
        watched[fd] = (char)yes;
    return fd;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
    real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define ON_PATH(letter, at, path) \
    if (below(at, path) && meet(letter) == FAIL) \
    return -1
#define ON_FD(letter, fd) \
    if (is_watched(fd) && meet(letter) == FAIL) \
    return -1

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        ON_PATH((flags & O_ACCMODE) == O_RDONLY ? 'o' : 'O', AT_FDCWD, path); \
        return watch(real(path, flags, mode), below(AT_FDCWD, path)); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        ON_PATH((flags & O_ACCMODE) == O_RDONLY ? 'o' : 'O', at, path); \
        return watch(real(at, path, flags, mode), below(at, path)); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        REAL(name); \
        if (below(AT_FDCWD, path) && meet(mode[0] == 'r' ? 'o' : 'O') == FAIL) \
            return NULL; \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

int close(int fd)
{
    REAL(close);
    int was = is_watched(fd);
    watch(fd, 0);
    int how = was ? meet('c') : PASS, ended = real(fd);
    if (how != FAIL)
        return ended;
    errno = number;
    return -1;
}

#define SIZED(name, letter, fd, size, call, result) \
    { \
        REAL(name); \
        int how = is_watched(fd) ? meet(letter) : PASS; \
        if (how == FAIL) \
            return -1; \
        if (how == SHORT && size > 1) \
            size /= 2; \
        return call; \
    }
ssize_t read(int fd, void *data, size_t n) SIZED(read, 'r', fd, n, real(fd, data, n), )
ssize_t write(int fd, const void *data, size_t n) SIZED(write, 'w', fd, n, real(fd, data, n), )
ssize_t pread(int fd, void *data, size_t n, off_t at)
    SIZED(pread, 'r', fd, n, real(fd, data, n, at), )
ssize_t pread64(int fd, void *data, size_t n, off64_t at)
    SIZED(pread64, 'r', fd, n, real(fd, data, n, at), )
ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
    SIZED(pwrite, 'w', fd, n, real(fd, data, n, at), )
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
    SIZED(pwrite64, 'w', fd, n, real(fd, data, n, at), )
ssize_t sendfile(int fd, int from, off_t *at, size_t n)
    SIZED(sendfile, 'w', fd, n, real(fd, from, at, n), )
ssize_t sendfile64(int fd, int from, off64_t *at, size_t n)
    SIZED(sendfile64, 'w', fd, n, real(fd, from, at, n), )
ssize_t writev(int fd, const struct iovec *parts, int n)
{
    REAL(writev);
    ON_FD('W', fd);
    return real(fd, parts, n);
}

#define DESCRIPTOR(name, letter, parameters, ...) \
    int name parameters \
    { \
        REAL(name); \
        ON_FD(letter, fd); \
        return real(__VA_ARGS__); \
    }
DESCRIPTOR(fsync, 'y', (int fd), fd)
DESCRIPTOR(fdatasync, 'y', (int fd), fd)
DESCRIPTOR(flock, 'l', (int fd, int how), fd, how)
DESCRIPTOR(fstat, 's', (int fd, struct stat *found), fd, found)
DESCRIPTOR(fstat64, 's', (int fd, struct stat64 *found), fd, found)
DESCRIPTOR(ftruncate, 't', (int fd, off_t size), fd, size)
DESCRIPTOR(ftruncate64, 't', (int fd, off64_t size), fd, size)
DESCRIPTOR(fchmod, 'm', (int fd, mode_t mode), fd, mode)

#define NAMED(name, letter, at, parameters, ...) \
    int name parameters \
    { \
        REAL(name); \
        ON_PATH(letter, at, path); \
        return real(__VA_ARGS__); \
    }
NAMED(stat, 's', AT_FDCWD, (const char *path, struct stat *found), path, found)
NAMED(lstat, 's', AT_FDCWD, (const char *path, struct stat *found), path, found)
NAMED(stat64, 's', AT_FDCWD, (const char *path, struct stat64 *found), path, found)
NAMED(lstat64, 's', AT_FDCWD, (const char *path, struct stat64 *found), path, found)
NAMED(fstatat, 's', at, (int at, const char *path, struct stat *found, int flags), at, path, found,
      flags)
NAMED(fstatat64, 's', at, (int at, const char *path, struct stat64 *found, int flags), at, path,
      found, flags)
NAMED(access, 's', AT_FDCWD, (const char *path, int how), path, how)
NAMED(mkdir, 'M', AT_FDCWD, (const char *path, mode_t mode), path, mode)
NAMED(mkdirat, 'M', at, (int at, const char *path, mode_t mode), at, path, mode)
NAMED(rmdir, 'u', AT_FDCWD, (const char *path), path)
NAMED(unlink, 'u', AT_FDCWD, (const char *path), path)
NAMED(unlinkat, 'u', at, (int at, const char *path, int flags), at, path, flags)
NAMED(chmod, 'm', AT_FDCWD, (const char *path, mode_t mode), path, mode)
NAMED(fchmodat, 'm', at, (int at, const char *path, mode_t mode, int flags), at, path, mode, flags)
NAMED(rename, 'n', AT_FDCWD, (const char *path, const char *to), path, to)
NAMED(renameat, 'n', at, (int at, const char *path, int to_at, const char *to), at, path, to_at, to)
NAMED(renameat2, 'n', at,
      (int at, const char *path, int to_at, const char *to, unsigned int flags), at, path, to_at,
      to, flags)

DIR *opendir(const char *path)
{
    REAL(opendir);
    int ours = below(AT_FDCWD, path);
    if (ours && meet('d') == FAIL)
        return NULL;
    DIR *folder = real(path);
    if (folder)
        watch(dirfd(folder), ours);
    return folder;
}

DIR *fdopendir(int fd)
{
    REAL(fdopendir);
    if (is_watched(fd) && meet('d') == FAIL)
        return NULL;
    return real(fd);
}

#define READDIR(name, type) \
    struct type *name(DIR *folder) \
    { \
        REAL(name); \
        if (is_watched(dirfd(folder)) && meet('i') == FAIL) \
            return NULL; \
        return real(folder); \
    }
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)

int closedir(DIR *folder)
{
    REAL(closedir);
    watch(dirfd(folder), 0);
    return real(folder);
}
