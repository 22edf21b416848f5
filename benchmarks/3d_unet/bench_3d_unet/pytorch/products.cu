// The 3D U-Net in 16 bits on tensor cores, from Ampere on: what its kernels share. `network.py` has this compiled, with
// `tiles.cu` and `layers.cu` behind it and IS_BF16 as 1 or 0, and says in which order kernels are launched.
//
// Activations are [n, depth, height, width, channels], channels a multiple of 32, and lie in memory as convolutions leave
// them. Whoever reads them normalises and rectifies on the way: `affine` holds a factor and a summand of each window and
// channel, and a null pointer means that values are read as they are. Sums are in float32.
//
// Products are 16 voxels x 16 inputs x 8 outputs. Of a thread, `g` is its row (and row g + 8), `t` its quarter of 32
// channels: the columns of weights are ordered so that a thread ends with 8 outputs side by side, 16 bytes.

typedef unsigned int u32;

constexpr int THREADS = 128, WARPS = 4;
constexpr int DEEP = 4, HIGH = 8, WIDE = 16;  // a tile of `convolve`
constexpr int LOW = 4, FLAT = 2;              // height and depth of one of `descend`

// --- instructions ---

#if IS_BF16
#define KIND "bf16"
__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
#else
#define KIND "f16"
__device__ __forceinline__ float low(u32 pair) {
    float value;
    asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(value) : "r"(pair));
    return value;
}
__device__ __forceinline__ float high(u32 pair) { return low(pair >> 16); }
#endif

__device__ __forceinline__ u32 packed(float first, float second) {
    u32 pair;
    asm("cvt.rn." KIND "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

__device__ __forceinline__ u32 packed_positive(float first, float second) {  // below 0 is 0
    u32 pair;
    asm("cvt.rn.relu." KIND "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

__device__ __forceinline__ void multiply(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// 16 rows of 16 values from shared memory; each thread names the address of one row's half
__device__ __forceinline__ void fragment(u32 (&a)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address));
}

// --- what kernels share ---

struct Affine {
    float2 of[8];  // of the thread's channels
};

__device__ __forceinline__ Affine affine_at(const float2* affine, int n, int channels, int channel) {
    Affine found;
#pragma unroll
    for (int i = 0; i < 8; i++) found.of[i] = affine ? affine[n * channels + channel + i] : make_float2(1.f, 0.f);
    return found;
}

__device__ __forceinline__ u32 rectified(u32 pair, float2 a, float2 b) {
    return packed_positive(low(pair) * a.x + a.y, high(pair) * b.x + b.y);
}

__device__ __forceinline__ uint4 rectified(uint4 value, const Affine& by) {
    return make_uint4(rectified(value.x, by.of[0], by.of[1]), rectified(value.y, by.of[2], by.of[3]),
                      rectified(value.z, by.of[4], by.of[5]), rectified(value.w, by.of[6], by.of[7]));
}

// the thread's 8 outputs of row g (half 0) or g + 8 (half 1)
__device__ __forceinline__ uint4 outputs_of(const float (&sums)[4][4], int half) {
    return make_uint4(packed(sums[0][half * 2], sums[0][half * 2 + 1]), packed(sums[1][half * 2], sums[1][half * 2 + 1]),
                      packed(sums[2][half * 2], sums[2][half * 2 + 1]), packed(sums[3][half * 2], sums[3][half * 2 + 1]));
}

struct Moments {
    float2 of[8];  // of the thread's outputs: their sum, and that of their squares
};

__device__ __forceinline__ void add(Moments& moments, const float (&sums)[4][4], int half) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float value = sums[i / 2][half * 2 + i % 2];
        moments.of[i].x += value;
        moments.of[i].y += value * value;
    }
}

// both rows' outputs of one product: of voxels `place` and `place + 8`, in channels from `part` * 8 on
__device__ __forceinline__ void store(uint4* out, const float (&sums)[4][4], size_t place, int parts, int part,
                                      Moments& moments) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        out[(place + half * 8) * parts + part] = outputs_of(sums, half);
        add(moments, sums, half);
    }
}

// adds up a block's moments, and writes those of its 32 channels
__device__ __forceinline__ void write(Moments& moments, float2* to) {
    __shared__ float2 shares[WARPS][32];
    const int lane = threadIdx.x % 32;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) {
            moments.of[i].x += __shfl_xor_sync(0xffffffffu, moments.of[i].x, mask);
            moments.of[i].y += __shfl_xor_sync(0xffffffffu, moments.of[i].y, mask);
        }
        if (lane < 4) shares[threadIdx.x / 32][lane * 8 + i] = moments.of[i];
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        float2 total = make_float2(0.f, 0.f);
        for (int warp = 0; warp < WARPS; warp++) {
            total.x += shares[warp][lane].x;
            total.y += shares[warp][lane].y;
        }
        to[lane] = total;
    }
}
