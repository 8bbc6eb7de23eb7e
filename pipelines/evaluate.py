"""Evaluate all tables of certificates: metrics per noise level, curves, report, plot."""

import pandas as pd

from components.certification import table
from components.data.prepared import load_description
from components.evaluation import metrics, plots, report
from components.params import Params, level_key
from components.tools.files import read_json, write_json, write_text
from pipelines import artifacts
from pipelines.cli import run_stage


def run(params: Params) -> None:
    description = load_description(artifacts.DESCRIPTION)
    summaries, curves = {}, []
    for sigma in params.sigmas:
        certificates = table.read(artifacts.certificates(sigma))
        identity = read_json(artifacts.certificates_identity(sigma), "run the certify stage again")
        summaries[level_key(sigma)] = metrics.summarize(certificates, params.evaluate.radii, identity)
        curves.append(metrics.curve(certificates, sigma, metrics.largest_radius_of(identity)))
    all_curves = pd.concat(curves)

    write_json(artifacts.METRICS, summaries)
    write_text(artifacts.CURVES, all_curves.to_csv(index=False))
    artifacts.REPORT.mkdir(parents=True, exist_ok=True)
    png = artifacts.REPORT / "certified_accuracy.png"
    name = params.register.name
    write_text(artifacts.REPORT / "report.md", report.markdown_report(summaries, name, description.source, png.name))
    spec = plots.certified_accuracy_spec(all_curves, artifacts.PLOT_TEMPLATE, f"Certified accuracy of {name}")
    plots.render(spec, png, png.with_suffix(".html"))
    print(report.text_summary(summaries))


if __name__ == "__main__":
    run_stage(run, __doc__)
