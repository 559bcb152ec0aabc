include: "../rules/common.smk"
include: "../rules/report.smk"


rule stage:
    default_target: True
    input:
        rules.report_page.output,
