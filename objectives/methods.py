"""Published methods: an objective, a source of sequences, and the paper's defaults."""

from kdbench.api import method

method("seqkd", "sft@teacher", source="Kim and Rush 2016, arXiv:1606.07947")
method("imitkd", "forward-kl@student", source="Lin et al. 2020, arXiv:2009.07253")
method("on-policy-kd", "reverse-kl@student", source="Agarwal et al. 2024, arXiv:2306.13649")
method("gkd", "jsd[beta=0.5]@mixed", source="Agarwal et al. 2024, arXiv:2306.13649, Algorithm 1")
method(
    "minillm",
    "reverse-kl@policy-gradient",
    source="Gu et al. 2024, arXiv:2306.08543; without its language-modelling term",
)
method(
    "distillm",
    "skew-reverse-kl[teacher_weight=0.9]@adaptive",
    source="Ko et al. 2024, arXiv:2402.03898",
)
method(
    "distillm-2",
    "skew-kl[teacher_weight=0.1]@contrastive",
    source="Ko et al. 2025, arXiv:2503.07067; fixed skew, fresh student samples",
)
