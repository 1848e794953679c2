"""Who may do what, in four models of our own: the three of the Cedar paper (OOPSLA 2024, §5) and the source's mix."""

from bench.workloads.base import Ask, Workload
from bench.workloads.gdrive import gdrive
from bench.workloads.github import github
from bench.workloads.mix import abac, mix, rbac, rebac
from bench.workloads.tinytodo import tinytodo

__all__ = ["Ask", "Workload", "abac", "gdrive", "github", "mix", "rbac", "rebac", "tinytodo"]
