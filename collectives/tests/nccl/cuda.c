/* Stands in for CUDA's driver: one device, whose memory is the host's and whose streams have always ended. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t ptr_t;
static int object;

int cuInit(unsigned flags) { (void)flags; return 0; }
/* 101: invalid device */
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? 0 : 101; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)attribute, (void)device; *value = 0; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &object; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
int cuCtxSetCurrent(void *context) { (void)context; return 0; }
int cuCtxGetCurrent(void **context) { *context = &object; return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = &object; return flags == 1 ? 0 : 1; }
int cuStreamSynchronize(void *stream) { (void)stream; return 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream, (void)event, (void)flags; return 0; }
int cuStreamDestroy_v2(void *stream) { (void)stream; return 0; }
int cuEventCreate(void **event, unsigned flags) { (void)flags; *event = &object; return 0; }
int cuEventRecord(void *event, void *stream) { (void)event, (void)stream; return 0; }
int cuEventQuery(void *event) { (void)event; return 0; }
int cuEventSynchronize(void *event) { (void)event; return 0; }
int cuEventDestroy_v2(void *event) { (void)event; return 0; }
int cuMemAlloc_v2(ptr_t *memory, size_t bytes) { *memory = (ptr_t)(uintptr_t)malloc(bytes); return 0; }
int cuMemFree_v2(ptr_t memory) { free((void *)(uintptr_t)memory); return 0; }
int cuMemsetD8Async(ptr_t to, unsigned char value, size_t bytes, void *stream) {
    (void)stream;
    memset((void *)(uintptr_t)to, value, bytes);
    return 0;
}
int cuMemcpyHtoDAsync_v2(ptr_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, ptr_t from, size_t bytes, void *stream) {
    (void)stream;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return 0;
}
int cuGetErrorName(int code, const char **name) { (void)code; *name = "CUDA_ERROR_INVALID_DEVICE"; return 0; }
int cuGetErrorString(int code, const char **text) { (void)code; *text = "invalid device ordinal"; return 0; }
