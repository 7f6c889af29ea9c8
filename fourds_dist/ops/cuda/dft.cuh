// One-dimensional DFTs inside one thread's registers: z[k] <- sum_n z[n] exp(-2 pi i n k / LENGTH).
//
// Every index is known after unrolling, so permutations cost nothing and the arrays stay in registers. Odd lengths use
// a direct sum over folded inputs, powers of two Cooley-Tukey, and products of both (14 = 2 x 7, 28 = 4 x 7,
// 56 = 8 x 7) Good-Thomas, which needs no twiddle factors because the two factors are coprime.

constexpr double PI = 3.14159265358979323846;

__device__ constexpr double sine(double x) {  // Taylor's series, for |x| <= pi / 2
    double term = x, sum = x;
    for (int n = 1; n < 14; ++n) {
        term *= -x * x / ((2 * n) * (2 * n + 1));
        sum += term;
    }
    return sum;
}

__device__ constexpr double sine_of_turn(int k, int n) {  // sin(2 pi k / n), exact at the quarters
    k = ((k % n) + n) % n;
    if (2 * k > n) return -sine_of_turn(n - k, n);
    if (4 * k > n) return sine(PI * (n - 2 * k) / n);
    return sine(2 * PI * k / n);
}

template <int LENGTH>
struct Roots {  // exp(2 pi i k / LENGTH)
    float cosine[LENGTH], sine[LENGTH];
    __device__ constexpr Roots() : cosine(), sine() {
        for (int k = 0; k < LENGTH; ++k) {
            cosine[k] = float(sine_of_turn(4 * k + LENGTH, 4 * LENGTH));
            sine[k] = float(sine_of_turn(k, LENGTH));
        }
    }
};

__device__ constexpr int power_of_two_part(int n) { return n % 2 ? 1 : 2 * power_of_two_part(n / 2); }

template <int LENGTH>
__device__ __forceinline__ void dft(float (&re)[LENGTH], float (&im)[LENGTH]);

// Multiply by exp(-2 pi i k / LENGTH); whole quarter turns are exchanges.
template <int LENGTH>
__device__ __forceinline__ void turn(float& re, float& im, int k) {
    constexpr Roots<LENGTH> roots;
    const float x = re, y = im;
    if (k % LENGTH == 0) return;
    if (4 * k == LENGTH) {
        re = y, im = -x;
    } else if (2 * k == LENGTH) {
        re = -x, im = -y;
    } else if (4 * k == 3 * LENGTH) {
        re = -y, im = x;
    } else {
        re = x * roots.cosine[k % LENGTH] + y * roots.sine[k % LENGTH];
        im = y * roots.cosine[k % LENGTH] - x * roots.sine[k % LENGTH];
    }
}

template <int LENGTH>
__device__ __forceinline__ void dft_odd(float (&re)[LENGTH], float (&im)[LENGTH]) {
    constexpr Roots<LENGTH> roots;
    constexpr int HALF = LENGTH / 2;
    float even_re[HALF + 1], even_im[HALF + 1], odd_re[HALF + 1], odd_im[HALF + 1];
    const float first_re = re[0], first_im = im[0];
#pragma unroll
    for (int j = 1; j <= HALF; ++j) {
        even_re[j] = re[j] + re[LENGTH - j], even_im[j] = im[j] + im[LENGTH - j];
        odd_re[j] = re[j] - re[LENGTH - j], odd_im[j] = im[j] - im[LENGTH - j];
        re[0] += even_re[j], im[0] += even_im[j];
    }
#pragma unroll
    for (int k = 1; k <= HALF; ++k) {
        float c_re = first_re, c_im = first_im, s_re = 0.f, s_im = 0.f;
#pragma unroll
        for (int j = 1; j <= HALF; ++j) {
            const float c = roots.cosine[j * k % LENGTH], s = roots.sine[j * k % LENGTH];
            c_re += c * even_re[j], c_im += c * even_im[j];
            s_re = j == 1 ? s * odd_re[j] : s_re + s * odd_re[j];
            s_im = j == 1 ? s * odd_im[j] : s_im + s * odd_im[j];
        }
        re[k] = c_re + s_im, im[k] = c_im - s_re;
        re[LENGTH - k] = c_re - s_im, im[LENGTH - k] = c_im + s_re;
    }
}

// LENGTH = A B. Coprime: n = B n1 + A n2 and k by the Chinese remainders. Else n = B n1 + n2, k = k1 + A k2, with twiddles.
template <int A, int B, bool COPRIME>
__device__ __forceinline__ void dft_product(float (&re)[A * B], float (&im)[A * B]) {
    constexpr int LENGTH = A * B;
    float t_re[LENGTH], t_im[LENGTH];
#pragma unroll
    for (int n2 = 0; n2 < B; ++n2) {
        float x[A], y[A];
#pragma unroll
        for (int n1 = 0; n1 < A; ++n1) {
            const int n = COPRIME ? (B * n1 + A * n2) % LENGTH : B * n1 + n2;
            x[n1] = re[n], y[n1] = im[n];
        }
        dft<A>(x, y);
#pragma unroll
        for (int k1 = 0; k1 < A; ++k1) {
            if (!COPRIME) turn<LENGTH>(x[k1], y[k1], n2 * k1);
            t_re[k1 * B + n2] = x[k1], t_im[k1 * B + n2] = y[k1];
        }
    }
#pragma unroll
    for (int k1 = 0; k1 < A; ++k1) {
        float x[B], y[B];
#pragma unroll
        for (int n2 = 0; n2 < B; ++n2) x[n2] = t_re[k1 * B + n2], y[n2] = t_im[k1 * B + n2];
        dft<B>(x, y);
#pragma unroll
        for (int i = 0; i < B; ++i) {
            const int k = k1 + A * i;
            re[k] = x[COPRIME ? k % B : i], im[k] = y[COPRIME ? k % B : i];
        }
    }
}

template <int LENGTH>
__device__ __forceinline__ void dft(float (&re)[LENGTH], float (&im)[LENGTH]) {
    constexpr int EVEN = power_of_two_part(LENGTH), ODD = LENGTH / EVEN;
    if constexpr (LENGTH == 2) {
        const float x = re[1], y = im[1];
        re[1] = re[0] - x, im[1] = im[0] - y;
        re[0] += x, im[0] += y;
    } else if constexpr (EVEN == 1) {
        if constexpr (LENGTH > 1) dft_odd<LENGTH>(re, im);
    } else if constexpr (ODD > 1) {
        dft_product<EVEN, ODD, true>(re, im);
    } else if constexpr (LENGTH <= 8) {
        dft_product<2, LENGTH / 2, false>(re, im);
    } else {
        dft_product<8, LENGTH / 8, false>(re, im);
    }
}
