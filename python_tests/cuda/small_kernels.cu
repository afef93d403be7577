// Kernels whose usual path is known, for test_cuda_sass.py. A multiplication by asm is one instruction of
// the machine's: FMUL, as often as it stands here and is gone through.
#define ONE(x) asm volatile("mul.rn.f32 %0, %0, %0;" : "+f"(x))
#define THREE(x) \
  ONE(x);        \
  ONE(x);        \
  ONE(x)

// n·3 multiplications, n known from the launch.
extern "C" __global__ void loop(float* x, int n) {
  float value = x[0];
#pragma unroll 1
  for (int i = 0; i < n; ++i) {
    THREE(value);
  }
  x[0] = value;
}

// (a / b + (c >> 3) − 2·(c < 0)) turns; a / b is a dozen instructions with a reciprocal in the middle.
extern "C" __global__ void integers(float* x, int a, int b, long long c) {
  float value = x[0];
  long long turns = a / b + (c >> 3);
  if (c < 0) turns = -turns;
#pragma unroll 1
  for (long long i = 0; i < turns; ++i) {
    ONE(value);
  }
  x[0] = value;
}

// Two multiplications a thread's element, for all of a row of cols elements that a block holds.
extern "C" __global__ void rows(float* x, long long count, int cols) {
  for (long long row = blockIdx.x; row < count; row += gridDim.x) {
#pragma unroll 1
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
      float value = x[row * cols + i];
      ONE(value);
      ONE(value);
      x[row * cols + i] = value;
    }
  }
}

// A division's slow part is elsewhere: one reciprocal here.
extern "C" __global__ void cold(float* x) { x[threadIdx.x] = x[threadIdx.x] / x[threadIdx.x + 32]; }

// Five shuffles, and three multiplications with five more for one row in many.
extern "C" __global__ void reduction(float* x) {
  float value = x[threadIdx.x];
  for (int flip = 16; flip > 0; flip /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, flip);
  if (value > 30.0f) {
    THREE(value);
    for (int flip = 16; flip > 0; flip /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, flip);
  }
  x[threadIdx.x] = value;
}

// Lanes differ: both ways, 3 + 1 multiplications. (With 20 other instructions the ways are no predicates.)
extern "C" __global__ void lanes(float* x) {
  float value = x[threadIdx.x], other = value;
  if (value > 0) {
    THREE(value);
    for (int i = 0; i < 20; ++i) asm volatile("add.rn.f32 %0, %0, %1;" : "+f"(value) : "f"(other));
  } else {
    ONE(value);
    for (int i = 0; i < 10; ++i) asm volatile("add.rn.f32 %0, %0, %1;" : "+f"(value) : "f"(other));
  }
  x[threadIdx.x] = value;
}

// Two kinds of rows: 1 + 50 instructions, or 3 + 60.
extern "C" __global__ void kinds(float* x) {
  float value = x[threadIdx.x], other = value;
  if (x[0] > 0) {
    THREE(value);
    for (int i = 0; i < 60; ++i) asm volatile("add.rn.f32 %0, %0, %1;" : "+f"(value) : "f"(other));
  } else {
    ONE(value);
    for (int i = 0; i < 50; ++i) asm volatile("add.rn.f32 %0, %0, %1;" : "+f"(value) : "f"(other));
  }
  x[threadIdx.x] = value;
}

// Until the data says so.
extern "C" __global__ void until(float* x) {
  float value = x[threadIdx.x];
  do {
    ONE(value);
  } while (value > 1);
  x[threadIdx.x] = value;
}

// Four packs of 16 bytes asked for before the first is used, then one after the other.
extern "C" __global__ void together(const float4* x, float* y) {
  float4 pack[4];
  for (int i = 0; i < 4; ++i)
    asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(pack[i].x), "=f"(pack[i].y), "=f"(pack[i].z), "=f"(pack[i].w)
                 : "l"(x + 32 * i + threadIdx.x));
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += pack[i].x * pack[i].y + pack[i].z * pack[i].w;
  for (int i = 0; i < 4; ++i) {
    float one;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(one) : "l"(y + 32 * i + threadIdx.x));
    asm volatile("add.rn.f32 %0, %0, %1;" : "+f"(sum) : "f"(one));
  }
  y[threadIdx.x] = sum;
}
