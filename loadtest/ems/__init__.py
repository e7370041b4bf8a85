"""
The options of energy management behind a smart meter gateway, each with real parts, and measured.

Options 1a to 2c of Förderer, Lösch, Novak, Ronczka and Schmeck, "Smart Meter Gateways: Options for a BSI-Compliant
Integration of Energy Management Systems" (Applied Sciences 9(8), 2019).
"""
