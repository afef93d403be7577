// Marks a function that is compiled for the host by g++ and for both sides by nvcc.
#pragma once

#if defined(__CUDACC__)
#define VAAL_HD __host__ __device__ __forceinline__
#else
#define VAAL_HD inline __attribute__((always_inline))
#endif
