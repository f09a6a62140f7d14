/* Stands in for NCCL where there is no GPU: one rank, whose sums are its own numbers, in the memory of the host. What is to
   go wrong is said when it is compiled. */
#include <stddef.h>
#include <string.h>

typedef struct { char bytes[128]; } id_t;
typedef struct { size_t size; unsigned magic, version; int blocking; } config_t;
struct comm { int asked, ranks, finalized; };

static struct comm only;
static int aborted, destroyed;

int ncclGetVersion(int *version) { *version = VERSION; return 0; }
int ncclGetUniqueId(id_t *id) { memset(id, 7, sizeof *id); return 0; }
const char *ncclGetErrorString(int code) { return code == 6 ? "remote process exited" : "invalid usage"; }
const char *ncclGetLastError(void *comm) { return comm ? "socket closed" : ""; }

#ifndef OLD
int ncclCommInitRankConfig(struct comm **comm, int ranks, id_t id, int rank, config_t *config) {
    if (config->magic != 0xcafebeefu || config->version != 21400 || config->size < sizeof *config || config->blocking)
        return 5;
    for (int i = 0; i < 128; i++)
        if (id.bytes[i] != 7) return 5;
    *comm = &only;
    only.asked = 0, only.ranks = ranks;
    return 7;
}
#endif

/* Ready when asked for the third time. */
int ncclCommGetAsyncError(struct comm *comm, int *state) {
#if defined ALONE
    *state = 7;
#elif defined GONE
    *state = ++comm->asked < 3 ? 7 : 6;
#else
    *state = ++comm->asked < 3 ? 7 : 0;
#endif
    return 0;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct comm *comm, void *stream) {
    if (type != 7 || op != 0 || comm != &only || stream) return 5;
    memmove(to, from, 4 * count);
    comm->asked = 0;
    return 7;
}
int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *comm, void *stream) {
    return ncclAllReduce(from, to, count, type, 0, comm, stream);
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, struct comm *comm, void *stream) {
    return root < comm->ranks ? ncclAllReduce(from, to, count, type, 0, comm, stream) : 5;
}
int ncclCommFinalize(struct comm *comm) { comm->finalized = 1; comm->asked = 0; return 7; }
int ncclCommDestroy(struct comm *comm) { destroyed++; return comm->finalized ? 0 : 5; }
int ncclCommAbort(struct comm *comm) { (void)comm; aborted++; return 0; }

/* For the test. */
int fake_aborted(void) { return aborted; }
int fake_destroyed(void) { return destroyed; }
