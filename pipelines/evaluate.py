"""Evaluate all tables of certificates: metrics per noise level, curves, report, plots."""

import pandas as pd

from components.certification import table
from components.data.prepared import load_description
from components.evaluation import metrics, plots, report
from components.params import Params, level_key
from components.tools.files import read_json, write_json, write_text
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    summaries, curves, ecdfs = {}, [], []
    for sigma in params.sigmas:
        certificates = table.read(artifacts.certificates(sigma))
        identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
        summaries[level_key(sigma)] = metrics.summarize(certificates, params.evaluate.radii, identity)
        curves.append(metrics.curve(certificates, sigma, metrics.largest_radius_of(identity)))
        ecdfs.append(metrics.p_lower_ecdf(certificates, sigma))
    all_curves, all_ecdfs = pd.concat(curves), pd.concat(ecdfs)

    write_json(artifacts.METRICS, summaries)
    write_text(artifacts.CURVES, all_curves.to_csv(index=False))
    write_text(artifacts.P_LOWER_ECDF, all_ecdfs.to_csv(index=False))
    artifacts.REPORT.mkdir(parents=True, exist_ok=True)
    name = params.register.name
    accuracy = plots.certified_accuracy_spec(all_curves, artifacts.PLOT_TEMPLATE, f"Certified accuracy of {name}")
    p_lower = plots.p_lower_spec(all_ecdfs, artifacts.P_LOWER_TEMPLATE, f"Distribution of p_lower of {name}")
    pictures = [artifacts.REPORT / "certified_accuracy.png", artifacts.REPORT / "p_lower_ecdf.png"]
    for spec, png in zip((accuracy, p_lower), pictures, strict=True):
        plots.render(spec, png, png.with_suffix(".html"))
    source = load_description(artifacts.DESCRIPTION).source
    page = report.markdown_report(summaries, name, source, *(png.name for png in pictures))
    write_text(artifacts.REPORT / "report.md", page)
    print(report.text_summary(summaries))


if __name__ == "__main__":
    run_stage(run, __doc__)
