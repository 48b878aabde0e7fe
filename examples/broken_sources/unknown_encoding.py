#!/usr/bin/env python3
# -*- coding: klingon -*-
"""Declares an encoding that there is not."""
