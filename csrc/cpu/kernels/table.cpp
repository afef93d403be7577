// This instruction set's kernels, for cpu/choose.cpp to choose from.
#include "cpu/kernels.h"

#define VAAL_STRING_(x) #x
#define VAAL_STRING(x) VAAL_STRING_(x)

namespace vaal::VAAL_ISA {

void symmetric_kl(const KLArguments&, int64_t, int64_t);
void posterior_summary(const SummaryArguments&, int64_t, int64_t);
void fisher_product(const FisherArguments&, int64_t, int64_t);
void fisher_direction(const DirectionArguments&, int64_t, int64_t);
NormPart norm_part(const void*, int64_t, Storage);
void add_scaled(const void*, const void*, void*, int64_t, Factor, Storage);
void scaled(const void*, void*, int64_t, int, double, Storage);
void normals(const NormalArguments&, void*);
void short_normals(const ShortNormalArguments&, void*);
void add_scaled_normals(const void*, const void*, void*, int64_t, Factor, Storage);

extern const Kernels kernels;
const Kernels kernels = {VAAL_STRING(VAAL_ISA),
                         symmetric_kl,
                         posterior_summary,
                         fisher_product,
                         fisher_direction,
                         norm_part,
                         add_scaled,
                         scaled,
                         normals,
                         short_normals,
                         add_scaled_normals};

}  // namespace vaal::VAAL_ISA
