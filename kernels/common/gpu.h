/*
gpu.h: what every kernel includes. Under nvcc it is CUDA; elsewhere the same names run through emu.h.

SHARED(T, name) is one object in shared memory. KERNEL(name) exports a kernel to the emulated driver.
*/
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define SHARED(T, name) __shared__ T name
#define KERNEL(name) static_assert(true, "")
#else
#include "../emu/emu.h"
#endif

#define DEVICE __device__ __forceinline__
